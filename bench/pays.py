"""When caching pays, as the table of the README: `python bench/pays.py [TEACHER STUDENT]`.

TEACHER is the views a second of `distillcache inspect estimate`, STUDENT the images a second that a student trains at.
Without them they are those of docs/benchmarks.md: DeiT-Ti from RegNetY-16GF, whose own time is that of a step of
online distillation less that of the student's bare step.
"""

import re
from pathlib import Path

import click

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
STUDENTS = (1, 2, 10)


def measured(page: str) -> tuple[float, float]:
    """Return the views a second of teacher and student in docs/benchmarks.md."""
    student, ready = _rates(page, "stage 2 DeiT-Ti")
    _, online = _rates(page, "stage 2 beside timm's")
    return 1 / (1 / online - 1 / ready), student


def table(teacher: float, student: float) -> str:
    """Return what n students cost with a store and without, counted in trainings of one student."""
    stage1 = student / teacher
    lines = ["| students | with a store | online |", "|---|---|---|"]
    lines += [f"| {n} | {stage1 + n:.1f} | {n * (stage1 + 1):.1f} |" for n in STUDENTS]
    return "\n".join(lines)


def _rates(page: str, beginning: str) -> tuple[float, float]:
    row = next(line for line in page.splitlines() if line.startswith(f"| {beginning}"))
    ours, theirs = (float(rate) for rate in re.findall(r"([\d.]+)/s", row))
    return ours, theirs


@click.command(help=__doc__)
@click.argument("rates", nargs=-1, metavar="[TEACHER STUDENT]", type=click.FloatRange(0, min_open=True))
def main(rates: tuple[float, ...]) -> None:
    if len(rates) not in (0, 2):
        raise click.UsageError(f"expected TEACHER and STUDENT, or neither, found {len(rates)}")
    teacher, student = rates or measured(PAGE.read_text())
    click.echo(f"teacher {teacher:.3g} views a second, student {student:.3g}\n\n{table(teacher, student)}")


if __name__ == "__main__":
    main()
