"""Signals that end a run: the first in good order, the second at once, and the death of the parent as one of them."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
Item = TypeVar("Item")
_ONE_AND_THE_SAME = 0.3  # seconds: a launcher passes on what the whole group of processes has got already
_WITHOUT_A_PARENT = 8.0
_BLOCKED_CODE = 5.0  # seconds for code that no signal can interrupt, where nothing would be saved anyway


class StopRequested(BaseException):
    """The user or the scheduler asked the process to stop; `exit_code` is a shell's."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; call again to go on")
        self.signum, self.exit_code = signum, 128 + signum


class StopSignals:
    """Within its with statement the first of `SIGNALS` sets `signum` and, unless held, raises StopRequested.

    A second one ends the process at once, whatever it is doing; so does the first, `patience` seconds later, where code
    that can't be interrupted has not returned by then. A signal that was ignored before (nohup) stays ignored.
    """

    def __init__(
        self, *, held: bool = False, patience: float | None = _BLOCKED_CODE, parent: int | None = None
    ) -> None:
        """`held`: only note signals, outside `raising`. `parent`: the process whose death counts as SIGTERM."""
        self.signum = 0
        self._installed = False
        self._held, self._patience, self._parent = held, patience, parent
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is not threading.main_thread():  # where Python handles no signals
            return self
        for signum in SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._before[signum] = signal.signal(signum, self._note)
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._bell_before = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        self._watch = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._watch.start()
        self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._installed:
            return
        signal.set_wakeup_fd(self._bell_before)
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._bell.close()
        self._watch.join()
        self._ear.close()

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Raise StopRequested inside also where signals are held: nothing is half done there."""
        held, self._held = self._held, False
        try:
            self.require_none()
            yield
        finally:
            self._held = held

    def waiting_for(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield items; a signal ends the waiting for the next one, which may be for a read that hangs."""
        while True:
            with self.raising():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def require_none(self) -> None:
        """Raise StopRequested if there was a signal."""
        if self.signum:
            raise StopRequested(self.signum)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if not self.signum:
            self.signum = signum
            if not self._held:
                raise StopRequested(signum)

    def _listen(self) -> None:
        """Hear signals also while the main thread is in code that lets Python handle none."""
        first, heard, until = 0, 0.0, float("inf")
        self._ear.settimeout(0.5)
        while True:
            try:
                rung = self._ear.recv(64)
            except TimeoutError:
                rung = None
            if rung == b"":
                return
            now = time.monotonic()
            for signum in (number for number in rung or b"" if number in self._before):
                if not first:
                    first, heard = signum, now
                    if self._patience is not None:
                        until = min(until, now + self._patience)
                elif now - heard > _ONE_AND_THE_SAME:
                    _leave("stopped at once; what was not saved is lost", signum)
            if self._parent and os.getppid() != self._parent:
                self._parent = None
                until = now + _WITHOUT_A_PARENT
                os.kill(os.getpid(), signal.SIGTERM)
            if now > until:
                _leave("stopped, without an answer from what it was waiting for", first or signal.SIGTERM)


def end_within(seconds: float, code: int) -> None:
    """Leave the process with `code` even if a thread that hangs in a read keeps it from ending by itself."""
    sys.stdout.flush()
    sys.stderr.flush()
    _later(seconds, lambda: os._exit(code))


def _later(seconds: float, function: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()


def _leave(message: str, signum: int) -> None:
    os.write(2, f"distillcache: {message}; run the same command again to go on\n".encode())
    os._exit(128 + signum)
