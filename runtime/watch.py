"""A read that does not return says so: a slow or vanished file server looks like a hang otherwise."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator


class Watch:
    """Prints one line to stderr for what takes longer than `patience` seconds, and again each time that doubles."""

    def __init__(self, patience: float = 30.0) -> None:
        self.patience = patience
        self._waiting: dict[int, tuple[str, float]] = {}  # by thread: for what, and since when
        self._process = 0

    @contextlib.contextmanager
    def waiting_for(self, name: str) -> Iterator[None]:
        """Watch over what is done inside, which reads `name`."""
        if self._process != os.getpid():
            self._start()
        thread = threading.get_ident()
        self._waiting[thread] = (name, time.monotonic())
        try:
            yield
        finally:
            del self._waiting[thread]

    def _start(self) -> None:
        """Begin to watch: once in each process, as a thread does not survive a fork."""
        self._process, self._waiting = os.getpid(), {}
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def _watch(self) -> None:
        told: dict[int, tuple[float, float]] = {}  # by thread: of the wait since when, and how long it was then
        while True:
            time.sleep(self.patience / 4)
            for thread, (name, since) in list(self._waiting.items()):
                waited, (last, then) = time.monotonic() - since, told.get(thread, (0.0, 0.0))
                if waited >= (2 * then if last == since else self.patience):
                    told[thread] = (since, waited)
                    print(
                        f"{name}: a read has taken {waited:.0f} s so far; is its disk or server well?", file=sys.stderr
                    )
