"""Statistics of a store as charts, in one picture."""

from typing import Any

from ..runtime import atomic
from ..runtime.optional import optional
from ..runtime.paths import AnyPath
from .stats import Stats

_NAMED = 12  # bars with a class's name
_OUTLIERS = 3  # dots with one


def plot(found: Stats, out: AnyPath, title: str) -> None:
    """Draw `found` into the PNG file `out`; ValueError if matplotlib is not installed."""
    figure = optional("matplotlib.figure", extra="plots", where="`plot`").Figure(figsize=(15, 9), layout="constrained")
    figure.suptitle(_plain(title))
    parts: Any = figure.subfigures(2, 1)
    rows = ((_by_view, _by_lambda, _by_class), (_histogram, _entropy, _confusions))
    for part, charts in zip(parts, rows, strict=True):
        for axes, draw in zip(part.subplots(1, 3), charts, strict=True):
            draw(axes, found)
            axes.spines[["top", "right"]].set_visible(False)
    atomic.write(out, lambda file: figure.savefig(file, format="png", dpi=110))


def _by_view(axes: Any, found: Stats) -> None:
    shares = [float("nan") if share is None else 100 * share for share in found.by_view]
    axes.plot(range(len(shares)), shares, marker="." if len(shares) < 50 else None)
    axes.axhline(100 * found.agreement, color="gray", linewidth=1, linestyle=":")
    axes.set(title="Agreement with the target, by view", xlabel="view", ylabel="% of the samples", ylim=(0, 100))
    axes.xaxis.get_major_locator().set_params(integer=True)


def _by_lambda(axes: Any, found: Stats) -> None:
    for kind, color in (("mixup", "C0"), ("cutmix", "C1")):
        groups = [group for group in found.by_lambda if group.kind == kind]
        if groups:
            at = [(group.low + group.high) / 2 for group in groups]
            theirs = [100 * group.partner for group in groups]
            axes.plot(at, [100 * g.agreement for g in groups], color=color, marker=".", label=f"{kind}: the target")
            axes.plot(at, theirs, color=color, marker=".", ls="--", label=f"{kind}: partner's")
    axes.set(
        title="What the label is, by lambda",
        xlabel="lambda: share of the own view",
        ylabel="% of the views",
        xlim=(0, 1),
        ylim=(0, 100),
    )
    if axes.has_data():
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
    else:
        axes.text(0.5, 50, "no view is mixed", ha="center")


def _by_class(axes: Any, found: Stats) -> None:
    known = [(one.agreement, one) for one in found.by_class if one.agreement is not None]
    least = sorted(known, key=lambda pair: pair[0])[:_NAMED][::-1]
    names = [_short(one.name, one.number) for _, one in least]
    axes.barh(range(len(least)), [100 * share for share, _ in least], tick_label=names)
    axes.tick_params(axis="y", labelsize="small")
    axes.set(title=f"Classes of the least agreement, of {len(known):,}", xlabel="% of its views", xlim=(0, 100))


def _histogram(axes: Any, found: Stats) -> None:
    views = [(one.views, one.labels, one) for one in found.by_class if one.views or one.labels]
    axes.scatter([own for own, _, _ in views], [labels for _, labels, _ in views], s=12, alpha=0.6)
    most = max(max(own, labels) for own, labels, _ in views) * 1.05
    axes.plot([0, most], [0, most], color="gray", linewidth=1, linestyle=":")
    for own, labels, one in sorted(views, key=lambda view: -abs(view[0] - view[1]))[:_OUTLIERS]:
        axes.annotate(_short(one.name, one.number), (own, labels), fontsize="x-small")
    axes.set(title="Labels against targets, a dot a class", xlabel="views of the class", ylabel="views given the class")
    axes.set(xlim=(0, most), ylim=(0, most))


def _entropy(axes: Any, found: Stats) -> None:
    step = found.most_bits / len(found.entropy_histogram)
    middles = [(number + 0.5) * step for number in range(len(found.entropy_histogram))]
    axes.bar(middles, found.entropy_histogram, width=0.95 * step)
    axes.axvline(found.entropy, color="gray", linewidth=1, linestyle=":")
    axes.set(title=f"Doubt: entropy of a sample's labels, mean {found.entropy:.2f}", xlabel="bits", ylabel="samples")
    axes.set(xlim=(0, found.most_bits))


def _confusions(axes: Any, found: Stats) -> None:
    most = found.confusions[:_NAMED][::-1]
    names = [f"{_short(c.target_name, c.target)} → {_short(c.label_name, c.label)}" for c in most]
    axes.barh(range(len(most)), [c.views for c in most], tick_label=names)
    axes.tick_params(axis="y", labelsize="small")
    axes.set(title="Target → label, where no mix explains it", xlabel="views")


def _short(name: str, number: int) -> str:
    return _plain(name if len(name) <= 22 else name[:21] + "…") or str(number)


def _plain(text: str) -> str:
    """Return a text that matplotlib draws as it is: no mathematics between dollars, nothing that does not print."""
    return "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")
