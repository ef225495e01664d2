"""Bars for long work: tqdm on a terminal, plain lines in a log; rate and time left in both."""

import sys
from typing import IO, cast

from tqdm import tqdm

from ..runtime.reporting import Reporter
from .errors import as_options
from .options import say


class _Lines:
    """A log file's view of a tqdm bar: each refresh is a line of its own."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            self._file.write(line + "\n")

    def flush(self) -> None:
        self._file.flush()


class Bar(tqdm, Reporter):  # type: ignore[misc]
    """A tqdm bar that can start in the middle without counting that as speed."""

    n: int
    total: int | None
    advance, log = tqdm.update, tqdm.write

    def start_at(self, n: int, total: int | None = None) -> None:
        """Show `n` as done before this run, or by others meanwhile; of `total`, where that changed."""
        if self.disable:
            return
        begun = self.total is not None
        self.total = self.total if total is None else total
        self.initial += n - self.n
        self.n = self.last_print_n = n
        if begun:
            self.refresh()
        else:  # the work begins now; of what is done at once, nothing is said
            self.start_t = self.last_print_t = self._time()

    def __exit__(self, kind: type[BaseException] | None, *more: object) -> None:
        """End at the total: what was left over of it (a last batch that is not full, say) is counted off."""
        if kind is None:
            self.total = self.n
        super().__exit__(kind, *more)


class Bars(Reporter):
    """A bar for each part of the work, and lines for people on standard error."""

    def log(self, text: str) -> None:
        """Print a line."""
        say(as_options(text), err=True)

    def part(self, what: str, total: int | None, unit: str) -> Bar:
        """Return a bar."""
        return bar(what, total, unit)


def bar(what: str, total: int | None, unit: str, *, shown: bool = True) -> Bar:
    """Return a bar on standard error that counts `unit`s up to `total`, or what it is told at its start."""
    terminal = sys.stderr.isatty()
    plain = "{desc}: {n_fmt}/{total_fmt}{unit}, {rate_fmt}, {elapsed} gone, {remaining} left"
    return Bar(
        total=total,
        disable=not shown,
        desc=what,
        unit=f" {unit}",
        file=sys.stderr if terminal else cast(IO[str], _Lines(sys.stderr)),
        mininterval=0.1 if terminal else 15,
        delay=0.3 if terminal else 3,  # of what is done at once, nothing is said
        dynamic_ncols=terminal,
        bar_format=None if terminal else plain,
    )
