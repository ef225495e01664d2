"""Methods side by side: the mean and standard deviation over seeds of what `make compare` trained.

    python bench/compare.py FOLDER      FOLDER holds a run METHOD-SEED for each method and seed

Prints a table of the held-out top-1 after the last epoch and writes FOLDER/compare.png.
"""

import json
import statistics
from pathlib import Path

import click
from matplotlib.figure import Figure

HEADS = ("class", "distill", "both")


def read(folder: Path) -> dict[tuple[str, str], list[float]]:
    """Return the top-1 of every seed, percent, by method and head."""
    found: dict[tuple[str, str], list[float]] = {}
    for path in sorted(folder.glob("*-*/summary.json")):
        summary, (method, _, _) = json.loads(path.read_text()), path.parent.name.rpartition("-")
        for head in HEADS:
            if (top1 := summary.get(f"top1_{head}")) is not None:
                found.setdefault((method, head), []).append(top1)
    return found


def table(found: dict[tuple[str, str], list[float]]) -> str:
    rows = ["| distillation | head | seeds | top-1, mean ± standard deviation |", "|---|---|---|---|"]
    for (method, head), values in found.items():
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        rows.append(f"| {method} | {head} | {len(values)} | {statistics.mean(values):.2f}{spread}% |")
    return "\n".join(rows)


def plot(found: dict[tuple[str, str], list[float]]) -> Figure:
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for place, values in enumerate(found.values()):
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        axes.errorbar(place, statistics.mean(values), yerr=spread, fmt="o", capsize=5, color="C0")
        axes.scatter([place] * len(values), values, marker="x", color="C1", zorder=3)
    axes.set_xticks(range(len(found)), [f"{method}\n{head}" for method, head in found])
    axes.set(ylabel="held-out top-1, %", title="mean and standard deviation (o), each seed (x)")
    axes.grid(axis="y", alpha=0.3)
    return figure


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(folder: Path) -> None:
    if not (found := read(folder)):
        raise click.UsageError(f"expected finished runs METHOD-SEED in {folder}, found none")
    click.echo(table(found))
    plot(found).savefig(folder / "compare.png", dpi=120)
    click.echo(f"\n{folder / 'compare.png'}")


if __name__ == "__main__":
    main()
