"""Byte locks, between real processes."""

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distillcache.runtime.locks import HeldError, LockFile

HOLD = """
import sys, pathlib
from distillcache.runtime.locks import LockFile
with LockFile(pathlib.Path(sys.argv[1]), shared=sys.argv[2] == "shared") as file:
    file.lock(5)
    if sys.argv[2] == "alone":
        file.sign()
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(path: Path, how: str) -> "subprocess.Popen[bytes]":
    """Start a process that holds byte 0, and byte 5 if it can have it, until it is ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout and process.stdout.readline() == b"held\n"
    return process


def test_a_held_file_is_refused_with_its_holder_until_that_is_killed(tmp_path: Path) -> None:
    holder = hold(tmp_path / "lock", "alone")
    with pytest.raises(HeldError) as held:
        LockFile(tmp_path / "lock")
    assert held.value.holder == f"pid {holder.pid} on {socket.gethostname()}"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with LockFile(tmp_path / "lock") as file:
        assert file.lock(5)


def test_several_share_a_byte_and_the_last_may_have_it_alone(tmp_path: Path) -> None:
    other = hold(tmp_path / "lock", "shared")
    with LockFile(tmp_path / "lock", shared=True) as file:
        assert not file.lock(0) and not file.lock(5) and file.lock(6)
        other.communicate()
        assert file.lock(0) and file.lock(5)


def opened_by(process: subprocess.Popen[bytes]) -> set[str]:
    """Return the files that a process has open."""
    found = set()
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of one that just closed
            found.add(str(link.readlink()))
    return found


def test_who_waits_does_not_hold_a_file_that_was_removed(tmp_path: Path) -> None:
    """The holder removes it as it leaves: the one that waited makes it anew."""
    path = tmp_path / "lock"
    with LockFile(path) as file:
        waiting = subprocess.Popen(
            [sys.executable, "-c", HOLD.replace('"shared"', '"shared", wait=True'), str(path), "shared"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        while str(path) not in opened_by(waiting):
            assert waiting.poll() is None
        file.remove()
    assert waiting.stdout and waiting.stdout.readline() == b"held\n"
    assert path.exists()
    with pytest.raises(HeldError):
        LockFile(path)
    waiting.communicate()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, None])
def test_a_file_system_without_locks_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    """None: one that does not answer."""

    def no_lock(*_: object) -> None:
        if number is None:
            time.sleep(60)
        raise OSError(number, os.strerror(number or 0))

    monkeypatch.setattr(fcntl, "lockf", no_lock)
    started = time.monotonic()
    with pytest.raises(ValueError, match=f"{tmp_path}: expected a file system with byte locks, found none"):
        LockFile(tmp_path / "lock")
    assert time.monotonic() - started < 1.5
    assert (tmp_path / "lock").exists() == (number is None)
