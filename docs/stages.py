"""The README's picture of the two stages, light and dark: `python docs/stages.py` writes both."""

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
WIDTH, HEIGHT = 886, 418
FONT = "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\""


@dataclass(frozen=True, kw_only=True, slots=True)
class Theme:
    """The colours of one picture."""

    ink: str
    faint: str
    line: str
    box: str
    teacher: str
    student: str
    store: str
    store_ink: str


LIGHT = Theme(
    ink="#1f2328", faint="#59636e", line="#8c959f", box="#f6f8fa", teacher="#8250df", student="#1a7f37",
    store="#0969da", store_ink="#ffffff",
)  # fmt: skip
DARK = Theme(
    ink="#f0f6fc", faint="#9198a1", line="#656c76", box="#161b22", teacher="#a371f7", student="#3fb950",
    store="#1f6feb", store_ink="#ffffff",
)  # fmt: skip


def text(
    x: float, y: float, words: str, colour: str, size: float = 14, *, weight: int = 400, at: str = "middle"
) -> str:
    return (
        f'<text x="{x}" y="{y}" fill="{colour}" font-size="{size}" font-weight="{weight}" text-anchor="{at}">'
        f"{words}</text>"
    )


def box(x: float, y: float, width: float, height: float, fill: str, edge: str, *, radius: float = 10) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="{fill}" stroke="{edge}" '
        'stroke-width="1.5"/>'
    )


def arrow(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    """A straight arrow, level or upright."""
    dx, dy = (x2 > x1) - (x2 < x1), (y2 > y1) - (y2 < y1)
    side = 4.5
    back_x, back_y = x2 - 9 * dx, y2 - 9 * dy
    tip = f"{x2},{y2} {back_x + side * dy},{back_y + side * dx} {back_x - side * dy},{back_y - side * dx}"
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2 - 8 * dx}" y2="{y2 - 8 * dy}" stroke="{colour}" stroke-width="1.8"/>'
        f'<polygon points="{tip}" fill="{colour}"/>'
    )


def landscape(x: float, y: float, size: float, sky: str, hill: str, sun: str, *, flipped: bool = False) -> str:
    """A little photo: hills and a sun."""
    turn = f"translate({x + size},{y}) scale(-1,1)" if flipped else f"translate({x},{y})"
    s = size
    return (
        f'<g transform="{turn}"><rect width="{s}" height="{s}" rx="3" fill="{sky}"/>'
        f'<circle cx="{0.72 * s}" cy="{0.28 * s}" r="{0.13 * s}" fill="{sun}"/>'
        f'<path d="M0 {s} L0 {0.72 * s} L{0.34 * s} {0.4 * s} L{0.6 * s} {0.74 * s} L{0.78 * s} {0.58 * s} L{s} '
        f'{0.8 * s} L{s} {s} Z" fill="{hill}"/></g>'
    )


def three_views(x: float, y: float) -> str:
    """Three views of one photo: plain, flipped, and with a piece of another one pasted in."""
    day, dusk = ("#79c0ff", "#2d6a4f", "#ffe08a"), ("#ffb4a2", "#6d3b63", "#fff1c9")
    size, step = 40, 48
    return "".join(
        [
            landscape(x, y, size, *day),
            landscape(x + step, y, size, *day, flipped=True),
            landscape(x + 2 * step, y, size, *day),
            landscape(x + 2 * step + 17, y + 17, size - 17, *dusk),
        ]
    )


def shards(x: float, y: float, theme: Theme) -> str:
    """Three tars, one behind the other."""
    cards = [box(x + 9 * i, y - 9 * i, 96, 92, theme.box, theme.line, radius=6) for i in (2, 1, 0)]
    rows = [
        f'<rect x="{x + 12 + 26 * (i % 3)}" y="{y + 14 + 24 * (i // 3)}" width="20" height="18" rx="2" '
        f'fill="{("#79c0ff", "#ffb4a2", "#2d6a4f", "#ffe08a", "#6d3b63")[i % 5]}"/>'
        for i in range(9)
    ]
    return "".join([*cards, *rows])


def title(y: float, name: str, command: str, colour: str, theme: Theme) -> str:
    return (
        f'<text x="240" y="{y}" font-size="14.5"><tspan fill="{colour}" font-weight="600">{name}</tspan>'
        f'<tspan fill="{theme.faint}" dx="9">{command}</tspan></text>'
    )


def stage(y: float, theme: Theme, what: str, edge: str) -> str:
    """What both rows have: views on the left, and room for the model that sees them."""
    return "".join(
        [
            box(238, y, 262, 84, theme.box, theme.line),
            three_views(252, y + 22),
            text(404, y + 38, "views", theme.ink, 15, weight=600, at="start"),
            text(404, y + 57, what, theme.faint, 12, at="start"),
            arrow(500, y + 42, 600, y + 42, theme.line),
            box(600, y, 262, 84, theme.box, edge),
        ]
    )


def model(y: float, name: str, what: str, heights: list[int], colour: str, theme: Theme) -> str:
    """A network's blocks, as high as they are wide in channels, and its name."""
    blocks = [
        f'<rect x="{620 + 13 * i}" y="{y + 42 - h / 2}" width="9" height="{h}" rx="2" fill="{colour}"/>'
        for i, h in enumerate(heights)
    ]
    names = [
        text(702, y + 38, name, theme.ink, 15, weight=600, at="start"),
        text(702, y + 57, what, theme.faint, 12, at="start"),
    ]
    return "".join([*blocks, *names])


def draw(theme: Theme) -> str:
    top, store, bottom = 44, 183, 296
    parts = [
        title(30, "Stage 1, once", "make cache-teacher", theme.teacher, theme),
        stage(top, theme, "crop, flip, mix", theme.teacher),
        model(top, "teacher", "a RegNetY, frozen", [24, 34, 46, 58, 58], theme.teacher, theme),
        shards(24, 176, theme),
        text(81, 292, "shards", theme.ink, 15, weight=600),
        text(81, 310, "WebDataset tars", theme.faint, 12),
        f'<path d="M190 {top + 42} V{bottom + 42} M142 212 H190" fill="none" stroke="{theme.line}" '
        'stroke-width="1.8"/>',
        arrow(190, top + 42, 238, top + 42, theme.line),
        arrow(190, bottom + 42, 238, bottom + 42, theme.line),
        box(238, store, 624, 58, theme.store, theme.store, radius=14),
        text(550, store + 26, "store", theme.store_ink, 15, weight=600),
        text(550, store + 44, "one Zarr group", theme.store_ink, 12),
        text(369, store + 35, "seeds, checks", theme.store_ink, 14),
        text(731, store + 35, "labels", theme.store_ink, 14),
        arrow(369, top + 84, 369, store, theme.line),
        arrow(731, top + 84, 731, store, theme.line),
        arrow(369, store + 58, 369, bottom, theme.line),
        arrow(731, store + 58, 731, bottom, theme.line),
        text(383, bottom - 24, "made again,", theme.faint, 12, at="start"),
        text(383, bottom - 9, "each view checked", theme.faint, 12, at="start"),
        text(745, bottom - 24, "no teacher", theme.faint, 12, at="start"),
        text(745, bottom - 9, "from here on", theme.faint, 12, at="start"),
        stage(bottom, theme, "the same", theme.student),
        model(bottom, "student", "a DeiT with two heads", [36, 36, 36, 36, 36], theme.student, theme),
        title(bottom + 108, "Stage 2, for every student", "make train-student", theme.student, theme),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT} role="img" '
        'aria-label="Stage 1 renders views of the shards, shows them to the teacher and keeps seeds, checks and labels '
        'in a store; stage 2 renders the same views again and trains a student with the labels.">'
        + "\n".join(parts)
        + "</svg>\n"
    )


if __name__ == "__main__":
    for name, theme in {"light": LIGHT, "dark": DARK}.items():
        (HERE / f"stages-{name}.svg").write_text(draw(theme))
