"""Claims: how the job that writes to a place on a server keeps others out of it, without byte locks."""

import json
import os
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from .errors import InputError
from .locks import HeldError
from .paths import AnyPath
from .remote import RemoteFile

RENEWED_EVERY = 10.0
"""Seconds between two signs of life of who holds a claim."""
_LEFT_WITHIN = 5.0


class Claim:
    """An object that is made only where there is none, names the job that made it, and is renewed while that runs.

    A context manager. A job that was killed leaves its claim; another may take it over that sees it unchanged for a
    while. No clock of another machine is believed.
    """

    def __init__(self, path: AnyPath, *, take_over: bool = False, nonce: str = "") -> None:
        """Claim `path`; HeldError if another job has, unless we may `take_over` and it shows no sign of life.

        With the `nonce` of a claim of this job, only watch that it is still held.
        """
        self.path, self._file, self._watches = path, RemoteFile(str(path)), bool(nonce)
        self.nonce, self._lost, self._ended = nonce or uuid.uuid4().hex, threading.Event(), threading.Event()
        while not (self._watches or self._file.create(self._said())):
            if (found := self._read()) is None:
                continue  # removed since
            if not take_over or self._lives(found):
                job, at = found.get("job", "another job"), found.get("at", "none")
                raise HeldError(path, f"{job} (last sign of life: {at})")
            self._file.remove()
        self._renewing = threading.Thread(target=self._renew, name="claim", daemon=True)
        self._renewing.start()

    def require_held(self) -> None:
        """Raise ValueError if another job has taken over meanwhile."""
        if self._lost.is_set():
            raise InputError(self.path, "a claim of this job", "another's, that took it over", "let one of them run")

    def __enter__(self) -> "Claim":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        leaving = threading.Thread(target=self._leave, name="claim", daemon=True)
        leaving.start()
        leaving.join(_LEFT_WITHIN)  # a server that is away keeps the claim: nobody waits for that

    def _leave(self) -> None:
        self._renewing.join()
        if not (self._watches or self._lost.is_set()) and self._is_ours(self._read()):
            self._file.remove()

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED_EVERY):
            try:
                if not self._is_ours(self._read()):
                    self._lost.set()
                    return
                if not self._watches:
                    self._file.write(self._said())
            except InputError:
                continue  # a server that is away for longer than that is noticed by who writes

    def _lives(self, found: dict[str, Any]) -> bool:
        """Return whether a claim is renewed while we watch it."""
        until = time.monotonic() + 3 * RENEWED_EVERY
        while time.monotonic() < until:
            time.sleep(RENEWED_EVERY / 5)
            if (now := self._read()) != found:
                return now is not None
        return False

    def _read(self) -> dict[str, Any] | None:
        """Return what the claim says, or None where there is none."""
        said = self._file.read_if_given()
        try:
            return dict(json.loads(said)) if said else None
        except ValueError:
            return {}

    def _is_ours(self, found: dict[str, Any] | None) -> bool:
        return (found or {}).get("nonce") == self.nonce

    def _said(self) -> bytes:
        job = f"pid {os.getpid()} on {socket.gethostname()}"
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        return json.dumps({"job": job, "at": at, "nonce": self.nonce}).encode()
