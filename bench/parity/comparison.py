"""What a comparison asks of the published side, the rows that it becomes, and the table they stand in."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import ks_2samp

FLOAT32 = 1e-6
"""What sums of float32 in another order may differ by, as a share."""
KS_AT_ONE_IN_A_THOUSAND = 1.95
"""Times sqrt((n + m) / nm): the Kolmogorov-Smirnov distance that equal distributions exceed once in a thousand."""
STANDARD_ERRORS = 4.0
"""How far two measured shares or means may lie apart."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: by how much ours differs from the published, and how much it may."""

    what: str
    ours: str = ""
    theirs: str = ""
    difference: float
    unit: str = ""
    where: str = ""
    """What differs, or in how many cases."""
    at_most: float = 0.0
    said: bool = False
    """Whether the difference is meant: docs/parity.md says why."""

    @property
    def verdict(self) -> str:
        if not self.difference <= self.at_most:  # also where it is not a number
            return "DIFFERS"
        if self.difference == 0:
            return "equal"
        return "said" if self.said else "within"

    def cells(self) -> tuple[str, ...]:
        where = f" ({self.where})" if self.where else ""
        numbers = (f"{n:.0f}" if 10 <= n < math.inf else f"{n:.2g}" for n in (self.difference, self.at_most))
        difference, at_most = (number + self.unit for number in numbers)
        return (self.what, self.ours, self.theirs, difference + where, at_most, self.verdict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One group of rows: `ask` names functions of the published side and their arguments, `rows` takes the answers."""

    name: str
    ask: dict[str, dict[str, Any]]
    rows: Callable[[dict[str, Any]], list[Row]]


def exit_code(rows: Iterable[Row]) -> int:
    """Return 1 if any row differs by more than it may."""
    return int(any(row.verdict == "DIFFERS" for row in rows))


def table(compared: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """Return the rows of all comparisons as Markdown, in columns of equal width."""
    head = ("what", "ours", "published", "difference", "at most", "verdict")
    body = [(f"{name}: {row.cells()[0]}", *row.cells()[1:]) for name, rows in compared for row in rows]
    widths = [max(len(line[column]) for line in (head, *body)) for column in range(len(head))]
    rule = tuple("-" * width for width in widths)
    lines = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in (head, rule, *body))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def relative(what: str, ours: torch.Tensor, theirs: torch.Tensor, *, at_most: float = FLOAT32) -> Row:
    """Return a row of the norm of the difference, as a share of the published one's norm."""
    a, b = ours.detach().double(), theirs.double()
    texts = {"ours": f"{float(a):.7g}", "theirs": f"{float(b):.7g}"} if a.numel() == 1 else {}
    return Row(what=what, **texts, difference=float((a - b).norm() / b.norm()), at_most=at_most)


def few(names: Sequence[str]) -> str:
    """Return the first of some names, and how many others there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def joined(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return all values of some tensors, one after the other."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def distributions(what: str, ours: Iterable[float], theirs: Iterable[float], *, at_most: float | None = None) -> Row:
    """Return a row of the Kolmogorov-Smirnov distance; with `at_most` given, one that is said."""
    a, b = (np.asarray(values, dtype=np.float64) for values in (ours, theirs))
    bound = KS_AT_ONE_IN_A_THOUSAND * math.sqrt((len(a) + len(b)) / (len(a) * len(b)))
    return Row(
        what=f"{what}, KS distance",
        ours=f"mean {a.mean():.4g}",
        theirs=f"mean {b.mean():.4g}",
        difference=float(ks_2samp(a, b, method="asymp").statistic),
        at_most=bound if at_most is None else at_most,
        said=at_most is not None,
    )


def share(what: str, ours: int, theirs: int, n: int, m: int | None = None, name: str = "") -> Row:
    """Return a row of how often something happened: `ours` of `n` times beside `theirs` of `m`, or of as many."""
    m = m or n
    both = (ours + theirs) / (n + m)
    return Row(
        what=what,
        ours=f"{ours / n:.4f}",
        theirs=f"{theirs / m:.4f}",
        difference=abs(ours / n - theirs / m),
        where=name,
        at_most=STANDARD_ERRORS * math.sqrt(both * (1 - both) * (1 / n + 1 / m)),
    )


def shares(what: str, ours: Sequence[int], theirs: Sequence[int], names: Sequence[str]) -> Row:
    """Return a row of that of `names` whose shares of all counts differ most."""
    n, m = sum(ours), sum(theirs)
    return worst(share(what, *counts, n, m, name) for *counts, name in zip(ours, theirs, names, strict=True))


def worst(rows: Iterable[Row]) -> Row:
    """Return the row that comes nearest to its bound, or is furthest beyond."""
    return max(rows, key=lambda row: row.difference / row.at_most)


def pixels(what: str, ours: torch.Tensor, theirs: torch.Tensor, *, at_most: float, said: bool = False) -> Row:
    """Return a row of the largest difference of uint8 images, in levels of 255, and the share of values that differ."""
    distance = (ours.int() - theirs.int()).abs()
    share = float((distance > 0).double().mean())
    return Row(
        what=what,
        difference=float(distance.max()),
        unit=" levels",
        where=f"{100 * share:.2g}% of values" if share else "",
        at_most=at_most,
        said=said,
    )
