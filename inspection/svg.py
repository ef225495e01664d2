"""Small charts as SVG, in the colours of the page that they stand in (`--c0`, `--c1`, ..., `--line`)."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT = 420, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 26
_COLUMNS = 256  # of a heat map; more shards share a column


def lines(series: Mapping[str, Sequence[tuple[float, float]]], *, high: float | None = None) -> str:
    """Return a chart of named series of (x, y), with a legend if there are several."""
    points = [point for values in series.values() for point in values]
    if not points:
        return "<p>nothing to draw</p>"
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    high_y = high or max(y for _, y in points) or 1.0
    drawn = []
    for number, (name, values) in enumerate(series.items()):
        at = [(_x(x, low_x, high_x), _y(y, high_y)) for x, y in sorted(values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        color = f"var(--c{number // 2})"
        stroke = f"stroke='{color}' stroke-width=2" + " stroke-dasharray='5 3'" * (number % 2)
        drawn.append(f"<polyline points='{path}' fill=none {stroke} />")
        if len(at) < 60:
            drawn += [f"<circle cx={x:.1f} cy={y:.1f} r=2.5 fill='{color}' />" for x, y in at]
        if len(series) > 1:
            y = _TOP + 12 + 15 * number
            drawn.append(f"<line x1=60 x2=84 y1={y - 4} y2={y - 4} {stroke} /><text x=90 y={y}>{escape(name)}</text>")
    return _chart([*_axis(high_y), *_ends(low_x, high_x), *drawn])


def bars(values: Sequence[float], *, high: float | None = None) -> str:
    """Return a chart of bars side by side."""
    if not values:
        return "<p>nothing to draw</p>"
    high_y = high or max(values) or 1.0
    step = (_WIDTH - _LEFT - _RIGHT) / len(values)
    width = step * (0.9 if len(values) < 100 else 1)
    drawn = [
        f"<rect x={_LEFT + i * step:.2f} y={_y(value, high_y):.1f} width={width:.2f} "
        f"height={_HEIGHT - _BOTTOM - _y(value, high_y):.1f} fill='var(--c0)' shape-rendering=crispEdges />"
        for i, value in enumerate(values)
    ]
    return _chart([*_axis(high_y), *drawn])


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
                box = f"<rect x={begun} y={row} width={i - begun} height=0.92 {color}>"
                cells.append(f"{box}<title>{escape(where)}</title></rect>")
                begun = i
    label = f"{columns} from left to right, {rows} from top to bottom"
    height = min(260, max(40, 14 * high))
    return (
        f"<svg viewBox='0 0 {groups} {high}' preserveAspectRatio=none role=img aria-label='{escape(label)}' "
        f"style='height:{height}px'>{''.join(cells)}</svg><p class=note>{escape(label)}; filled: cached</p>"
    )


def _x(value: float, low: float, high: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((value - low) / (high - low) if high > low else 0.5)


def _y(value: float, high: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - value / high)


def _axis(high: float) -> list[str]:
    marks = []
    for part in (0, 0.25, 0.5, 0.75, 1):
        y = _y(part * high, high)
        marks.append(f"<line x1={_LEFT} x2={_WIDTH - _RIGHT} y1={y:.1f} y2={y:.1f} stroke='var(--line)' />")
        marks.append(f"<text x={_LEFT - 6} y={y + 4:.1f} text-anchor=end>{part * high:,.4g}</text>")
    return marks


def _ends(low: float, high: float) -> list[str]:
    y = _HEIGHT - 8
    return [
        f"<text x={_LEFT} y={y}>{low:.4g}</text>",
        f"<text x={_WIDTH - _RIGHT} y={y} text-anchor=end>{high:.4g}</text>",
    ]


def _chart(parts: Sequence[str]) -> str:
    return f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role=img>{''.join(parts)}</svg>"
