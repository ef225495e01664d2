"""How long work says how far it is."""

import contextlib
from contextlib import AbstractContextManager


class Reporter:
    """Told how far long work is, in whatever it counts; this one keeps it to itself."""

    def advance(self, n: int = 1) -> None:
        """Hear that `n` more are done."""

    def start_at(self, n: int, total: int | None = None) -> None:
        """Hear that the count stands at `n`, by what was done before or by others; of `total`, where that changed."""

    def log(self, text: str) -> None:
        """Hear a line that is for people."""

    def part(self, what: str, total: int | None, unit: str) -> "AbstractContextManager[Reporter]":
        """Return, as a context, who is told of a part of the work: how many `unit`s are done, of `total` if known."""
        return contextlib.nullcontext(self)


SILENT = Reporter()
