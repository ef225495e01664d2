"""All benchmarks: one table of ours, theirs, ratio and target, in docs/benchmarks.md with a plot.

    python bench/run.py [GROUP ...]

GROUPs that are named are measured anew, and stand in the page beside those of before. Ends with exit code 1, after a
line `MISSED ...` for each target that was measured and not reached.
"""

import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from figures import ROUNDS, Figure, Skipped, text
from picture import draw

HERE = Path(__file__).resolve().parent
KEPT = HERE.parent / "runs" / "bench" / "found.json"
"""What each group found, and in how many seconds."""
DOCS = HERE.parent / "docs"
READING = """\
One core, `python bench/view_time.py`. Bare decoding is the limit only of a renderer that does nothing else: beside it
stand a resize (torch's, in hand-written SIMD) and 15 ops of which a view has two. What is left above them is spread
over many small steps, each of which finds the CPU's caches full of the decoder; a faster decoder would have to be
another one than libjpeg-turbo. The ratio of stage 2 to online distillation can't exceed that of the student's bare step
to the student's and the teacher's, which is a matter of the CPU: the better it multiplies bf16, the lower."""
GROUPS = ("startup", "store", "memory", "rendering", "stages", "ranks", "objects", "remote")


@click.command(help=__doc__)
@click.argument("groups", nargs=-1, type=click.Choice(GROUPS))
def main(groups: tuple[str, ...]) -> None:
    kept = json.loads(KEPT.read_text()) if groups and KEPT.exists() else {}
    found = []
    for group in groups or GROUPS:
        started = time.monotonic()
        of_group = measure(group)
        found += of_group
        written = [{"kind": type(one).__name__, **dataclasses.asdict(one)} for one in of_group]
        kept[group] = {"seconds": time.monotonic() - started, "found": written}
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        KEPT.write_text(json.dumps(kept))
    if set(kept) >= set(GROUPS):
        everything = [figure_of(one) for group in GROUPS for one in kept[group]["found"]]
        write(everything, sum(group["seconds"] for group in kept.values()))
    click.echo()
    for one in found:
        if isinstance(one, Skipped) or not one.reached:
            click.echo(text(one))
    sys.exit(any(isinstance(one, Figure) and not one.reached for one in found))


def measure(group: str) -> list[Figure | Skipped]:
    """Run one group in a process of its own, so that neither its memory nor its cores are another's."""
    process = subprocess.Popen([sys.executable, str(HERE / f"{group}.py"), "--json"], stdout=subprocess.PIPE, text=True)
    found: list[Figure | Skipped] = []
    for line in process.stdout or ():
        if line.startswith('{"kind"'):
            found.append(figure_of(json.loads(line)))
            click.echo(text(found[-1]))
    if process.wait():
        sys.exit(f"bench/{group}.py failed with exit code {process.returncode}")
    return found


def figure_of(fields: dict[str, Any]) -> Figure | Skipped:
    kinds: dict[str, Any] = {"Figure": Figure, "Skipped": Skipped}
    one: Figure | Skipped = kinds[fields["kind"]](**{name: value for name, value in fields.items() if name != "kind"})
    return one


def write(found: list[Figure | Skipped], seconds: float) -> None:
    figures = [one for one in found if isinstance(one, Figure)]
    lines = ["# Benchmarks", "", "Written by `make bench`, which measures all of it again.", "", machine(seconds), ""]
    lines += ["| what | ours | theirs | value | target |", "|---|---|---|---|---|"]
    for one in figures:
        sign, missed = "≥" if one.at_least else "≤", "" if one.reached else " (missed)"
        value = f"{one.value:.{3 if one.reached else 4}g}{one.unit}{missed}"
        lines.append(f"| {one.what} | {one.ours} | {one.theirs} | {value} | {sign} {one.target:g}{one.unit} |")
    lines += ["", "![How many times faster or smaller than each peer](benchmarks.png)", ""]
    if skipped := [f"- {one.what}: {one.reason}" for one in found if isinstance(one, Skipped)]:
        lines += ["Not measured here:", "", *skipped, ""]
    spent = subprocess.check_output([sys.executable, str(HERE / "view_time.py")], text=True)
    lines += ["## Where a view's time goes", "", READING, "", "```", *spent.splitlines(), "```", ""]
    page = "\n".join(lines)
    (DOCS / "benchmarks.md").write_text(page)
    draw(page).savefig(DOCS / "benchmarks.png", dpi=110)


def machine(seconds: float) -> str:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm", "pillow", "zarr"))
    cpus = Path("/proc/cpuinfo").read_text().partition("model name\t: ")[2].partition("\n")[0]
    return (
        f"{cpus or platform.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}; "
        f"{seconds / 60:.0f} minutes. Medians of {ROUNDS} turns; contenders take turns, ratios are within a turn."
    )


if __name__ == "__main__":
    main()
