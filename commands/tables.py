"""Tables for a terminal: as wide as it is, coloured only there, one JSON form beside each."""

import shutil
import sys
from collections.abc import Sequence
from typing import Any

import click

from .options import printable, say

_GAP = 2


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, colors: Sequence[str | None] = ()) -> str:
    """Return rows under a header, numbers to the right, texts to the left, the widest text cut to fit the terminal.

    `colors` has one of click's colours, or None, for each row.
    """
    cells = [[printable(_text(value), keep="") for value in row] for row in (header, *rows)]
    right = [all(isinstance(row[i], (int, float)) for row in rows if row[i] is not None) for i in range(len(header))]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    room = max(40, shutil.get_terminal_size().columns) if sys.stdout.isatty() else sum(widths) + _GAP * len(widths)
    room -= _GAP * (len(widths) - 1)
    while sum(widths) > room:
        cut = [i for i in range(len(widths)) if not right[i] and header[i] != "key"]  # which other commands need whole
        widest = max(cut, key=lambda i: widths[i], default=None)
        if widest is None or widths[widest] <= 8:
            break
        widths[widest] -= 1
    lines = []
    for row, color in zip(cells, (None, *(colors or [None] * len(rows))), strict=True):
        fitted = [_fit(text, width, to_right) for text, width, to_right in zip(row, widths, right, strict=True)]
        line = (" " * _GAP).join(fitted).rstrip()
        lines.append(click.style(line, fg=color) if color else line)
    lines[0] = click.style(lines[0], bold=True)
    return "\n".join(lines)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _fit(text: str, width: int, right: bool) -> str:
    shown = text if len(text) <= width else text[: width - 1] + "…"
    return shown.rjust(width) if right else shown.ljust(width)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table under its title, or that it has no rows."""
    say(f"\n{title}")
    if rows:
        click.echo(table(header, rows))
    else:
        say("none")
