"""Small charts as SVG, in the colours of the page that they stand in (`--c0`, `--c1`, ..., `--line`).

Written here and not by matplotlib: what is pointed at has a title with its value, a class can be clicked, and light and
dark are the page's.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

_WIDTH, _HEIGHT = 420, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 10, 36
_RIGHT_EDGE, _BOTTOM_EDGE = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
_COLUMNS = 256  # of a heat map; more shards share a column
_TICKS = 5
_PERCENT = 100
_MARKED = 60  # points of a line up to which each has a mark


class Point(NamedTuple):
    """A value, a share of 0 to 1, at `x`, and what is said of it when it is pointed at."""

    x: float
    share: float
    title: str


class Bar(NamedTuple):
    """A value and what is said of it when it is pointed at; `number` is that of a class, for bars of classes."""

    value: float
    title: str
    number: int | None = None


def lines(series: Mapping[str, Sequence[Point]], x_ticks: Mapping[float, str], x_name: str) -> str:
    """Return a chart of named series, with a legend below it if there are several."""
    if not any(series.values()):
        return "<p>nothing to draw</p>"
    places = [*x_ticks, *(point.x for points in series.values() for point in points)]
    low, high = min(places), max(places)
    drawn, legend = [], []
    for number, (name, points) in enumerate(series.items()):
        at = [(_x(point.x, low, high), _y(point.share, 1), point.title) for point in sorted(points)]
        dashes = " stroke-dasharray='5 3'" if number % 2 else ""
        stroke = f"stroke='var(--c{number // 2})' stroke-width=2{dashes}"
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in at)
        drawn.append(f"<polyline points='{path}' fill=none {stroke} />")
        classes = "hit" if len(points) <= _MARKED else "'hit room'"
        drawn += [
            f"<circle class={classes} cx={x:.1f} cy={y:.1f} r=3 fill='var(--c{number // 2})'>"
            f"<title>{escape(title)}</title></circle>"
            for x, y, title in at
        ]
        line = f"<svg class=key viewBox='0 0 28 10'><line x1=0 x2=28 y1=5 y2=5 {stroke} /></svg>"
        legend.append(f"<li>{line}{escape(name)}</li>")
    ticks = {_x(value, low, high): text for value, text in x_ticks.items()}
    chart = _chart(_shares(), ticks, x_name, drawn)
    return f"{chart}<ul class=legend>{''.join(legend)}</ul>" if len(series) > 1 else chart


def bars(values: Sequence[Bar], x_ticks: Mapping[float, str], x_name: str, *, shares: bool = False) -> str:
    """Return a chart of bars side by side, of counts or of `shares`; `x_ticks` are at bars' edges, counted from 0."""
    if not values:
        return "<p>nothing to draw</p>"
    ticks = _shares() if shares else _counts(max(bar.value for bar in values))
    step = (_RIGHT_EDGE - _LEFT) / len(values)
    width = 0.9 * step if len(values) < 100 else step + 0.5  # many overlap a little: rounded, they would leave gaps
    drawn = []
    for i, bar in enumerate(values):
        x, y = _LEFT + i * step, _y(bar.value, max(ticks))
        chosen = "" if bar.number is None else f" data-target={bar.number}"
        drawn.append(
            f"<g class=hit{chosen}><title>{escape(bar.title)}</title>"
            f"<rect class=room x={x:.2f} y={_TOP} width={step:.2f} height={_BOTTOM_EDGE - _TOP} />"
            f"<rect x={x:.2f} y={y:.1f} width={width:.2f} height={_BOTTOM_EDGE - y:.1f} /></g>"
        )
    return _chart(ticks, {_LEFT + at * step: text for at, text in x_ticks.items()}, x_name, drawn)


def heat_map(shares: Any, columns: str, rows: str) -> str:
    """Return shares of 0 to 1, an array (row, column), as a map; its columns are put together where there are many."""
    high, wide = shares.shape
    groups = min(wide, _COLUMNS)
    edges = [i * wide // groups for i in range(groups + 1)]
    cells = []
    for row in range(high):
        begun = 0
        means = [round(float(shares[row, edges[i] : edges[i + 1]].mean()), 3) for i in range(groups)]
        for i in range(1, groups + 1):  # neighbours that are alike are one rectangle
            if i == groups or means[i] != means[begun]:
                where = f"{rows}: {row}, {columns}: {edges[begun]} to {edges[i] - 1}, {means[begun]:.0%}"
                color = f"fill='var(--c0)' fill-opacity={0.08 + 0.92 * means[begun]:.3f}"
                box = f"<rect class=hit x={begun} y={row} width={i - begun} height=0.92 {color}>"
                cells.append(f"{box}<title>{escape(where)}</title></rect>")
                begun = i
    label = f"{columns} from left to right, {rows} from top to bottom"
    height = min(260, max(40, 14 * high))
    return (
        f"<svg viewBox='0 0 {groups} {high}' preserveAspectRatio=none role=img aria-label='{escape(label)}' "
        f"style='height:{height}px'>{''.join(cells)}</svg><p class=note>{escape(label)}; filled: cached</p>"
    )


def evenly(last: int) -> list[int]:
    """Return whole numbers from 0 to `last` at a round distance: a few ticks of an axis that counts."""
    step = _round_step(last)
    ticks = list(range(0, last + 1, step))
    return [*ticks, last] if last - ticks[-1] > step // 2 else ticks


def _round_step(high: float) -> int:
    """Return 1, 2 or 5 times a power of ten, the least with which few ticks reach `high`."""
    power: int = 10 ** max(0, math.floor(math.log10(max(high, 1) / _TICKS)))
    return next(times * power for times in (1, 2, 5, 10) if times * power * _TICKS >= high)


def _counts(most: float) -> dict[float, str]:
    step = _round_step(most)
    return {float(n): f"{n:,}" for n in range(0, step * max(1, math.ceil(most / step)) + 1, step)}


def _shares() -> dict[float, str]:
    return {percent / _PERCENT: f"{percent}%" for percent in range(0, _PERCENT + 1, 25)}


def _x(value: float, low: float, high: float) -> float:
    return _LEFT + (_RIGHT_EDGE - _LEFT) * ((value - low) / (high - low) if high > low else 0.5)


def _y(value: float, high: float) -> float:
    return _TOP + (_BOTTOM_EDGE - _TOP) * (1 - value / high)


def _chart(y_ticks: Mapping[float, str], x_ticks: Mapping[float, str], x_name: str, drawn: Sequence[str]) -> str:
    parts = []
    for value, text in y_ticks.items():
        y = _y(value, max(y_ticks))
        parts.append(f"<line x1={_LEFT} x2={_RIGHT_EDGE} y1={y:.1f} y2={y:.1f} stroke='var(--line)' />")
        parts.append(f"<text x={_LEFT - 6} y={y + 4:.1f} text-anchor=end>{text}</text>")
    for x, text in x_ticks.items():
        parts.append(f"<text x={x:.1f} y={_BOTTOM_EDGE + 14} text-anchor=middle>{escape(text)}</text>")
    middle = (_LEFT + _RIGHT_EDGE) / 2
    parts.append(f"<text x={middle} y={_HEIGHT - 6} text-anchor=middle>{escape(x_name)}</text>")
    return f"<svg class=chart viewBox='0 0 {_WIDTH} {_HEIGHT}' role=img>{''.join([*parts, *drawn])}</svg>"
