"""docs/benchmarks.png, drawn from the table in docs/benchmarks.md: how many times faster or smaller than each peer.

python bench/picture.py
"""

import re
from pathlib import Path

from matplotlib.figure import Figure as Plot
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

DOCS = Path(__file__).resolve().parent.parent / "docs"
INK, GROUND, AHEAD, BEHIND = "#1f2328", "#f6f8fa", "#0969da", "#bc4c00"
DECODING = "beside bare JPEG decoding by simplejpeg"  # the faster of the two
PEERS = {
    "store, labels alone": "a label, beside TinyViT's ten logits",
    "store, labels and checks": "a label and its check, beside TinyViT's ten logits",
    "store with --topk 10": "ten logits, label, check, beside TinyViT's ten logits",
    "views on one core, repeats 3, beside timm's": "three views of each image, beside timm's transform",
    "views on one core, repeats 1, beside DALI's": "one view of each image, beside DALI on the CPU",
    "views on one core, repeats 1, beside timm's": "one view of each image, beside timm's transform",
    f"views on one core, repeats 3, {DECODING}": "three views of each image, beside decoding alone",
    f"views on one core, repeats 1, {DECODING}": "one view of each image, beside decoding alone",
    "stage 2 beside timm's": "DeiT-Ti from the store, beside online distillation",
    "stage 2 DeiT-Ti (bf16), beside": "DeiT-Ti from the store, beside ready tensors",
}
"""How the row of the table that begins so is named in the picture: what is measured, and beside what."""


def times(page: str) -> dict[str, float]:
    """Return how many times faster or smaller than its peer each row of PEERS is; ValueError for one that is gone.

    DALI's is left out where that is not installed.
    """
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in page.splitlines() if row.startswith("| ")]
    found = {}
    for beginning, name in PEERS.items():
        row = next((row for row in rows if row[0].startswith(beginning)), None)
        if row is None and "DALI" in beginning:
            continue
        if row is None:
            raise ValueError(f"docs/benchmarks.md: expected a row that begins with {beginning!r}, found none")
        _, ours, theirs, value, _ = row
        found[name] = _number(theirs) / _number(ours) if "B/view" in ours else _number(value)
    return found


def draw(page: str) -> Plot:
    """Return the picture of a page: one bar a peer, to the right of 1x where we are ahead."""
    bars = sorted(times(page).items(), key=lambda bar: bar[1])
    plot = Plot(figsize=(9, 0.42 * len(bars) + 1), layout="constrained", facecolor=GROUND)
    axes = plot.subplots()
    axes.set_facecolor(GROUND)
    for place, (_, value) in enumerate(bars):
        axes.barh(place, value - 1, left=1, height=0.62, color=AHEAD if value >= 1 else BEHIND)
        side = "left" if value >= 1 else "right"
        offset = (5 if value >= 1 else -5, 0)
        axes.annotate(
            f"{value:.2g}x", (value, place), offset, textcoords="offset points", ha=side, va="center", color=INK
        )
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars], color=INK)
    axes.set(xscale="log", xlim=(0.4, 1.5 * bars[-1][1]))
    axes.set_xlabel("times faster, or smaller", color=INK)
    axes.xaxis.set_major_locator(FixedLocator([0.5, 1, 2, 5, 10, 20, 50]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    return plot


def _number(text: str) -> float:
    """Return the last number of a cell."""
    return float(re.findall(r"\d[\d,.]*", text)[-1].replace(",", ""))


if __name__ == "__main__":
    draw((DOCS / "benchmarks.md").read_text()).savefig(DOCS / "benchmarks.png", dpi=110)
