"""Errors in one line each, with the exit code that they mean: 2 bad input, 1 a failed check, 128 + N signal N."""

import errno
import re
import shutil
import signal
import sys
from pathlib import Path

import click

from ..runtime.signals import StopRequested
from ..runtime.workers import WorkerDiedError

_LONGEST = 300
_SHARED_MEMORY = Path("/dev/shm")
_PARAMETER = re.compile(r"`([a-z_]+)(?:=([^`]+))?`(:)?")
"""A parameter of ours in an error's words, alone or with a value; with a colon, where it is what the error is about."""
_CLIENTS = ("aiohttp", "botocore", "gcsfs", "azure")
"""Packages through which shards are read from servers; of their errors some are no OSError."""
_ENLARGE = "it is too small; enlarge it (docker run --shm-size=1g, or mount -o remount,size=1g /dev/shm)"


def line_of(error: BaseException) -> tuple[str, int] | None:
    """Return what to say of an error and the exit code; None for a bug of ours."""
    if isinstance(error, click.Abort):  # Ctrl-C where Python's own handler stands
        error = StopRequested(signal.SIGINT)
    if isinstance(error, StopRequested):
        return "stopped; run the same command again to go on", error.exit_code
    if isinstance(error, WorkerDiedError):
        return f"a process that renders views died ({error}); is memory short? try fewer --workers", 2
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "memory: this machine's does not suffice; lower --batch-size or --workers", 2
    if type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch for it
        return "device: its memory does not suffice; lower --batch-size, or raise --grad-accum-steps", 2
    if type(error).__module__.partition(".")[0] in _CLIENTS:
        return f"a server did not answer as expected ({type(error).__name__}: {error}); run the same command again", 2
    if isinstance(error, OSError):
        return _of_the_system(error), 2
    if isinstance(error, RuntimeError) and _is_of_a_peer(error):
        return "another process of this run ended; its own line says why; run the same command again to go on", 1
    if isinstance(error, (ValueError, RuntimeError)) and isinstance(code := getattr(error, "exit_code", None), int):
        return as_options(str(error)), code
    return (str(error), 2) if isinstance(error, ValueError) else None


def as_options(text: str) -> str:
    """Return a text with what it says of our parameters spelled as on the command line."""
    return _PARAMETER.sub(_as_option, text)


def _as_option(parameter: re.Match[str]) -> str:
    """Return how a parameter is given on the command line: `amp=False` is --no-amp."""
    name, value, is_subject = parameter[1].replace("_", "-"), parameter[2], parameter[3]
    if is_subject:
        return f"{name}:"
    if value in ("True", "False"):
        return f"--{name}" if value == "True" else f"--no-{name}"
    return f"--{name} {value}" if value else f"--{name}"


def fitted(line: str) -> str:
    """Return a message as one line of at most 300 characters; of a longer one the middle is left out."""
    line = " ".join(line.split())
    if len(line) <= _LONGEST:
        return line
    head, tail = _LONGEST * 3 // 5, _LONGEST * 2 // 5 - 3
    return f"{line[:head].rstrip()} … {line[-tail:].lstrip()}"


def _of_the_system(error: OSError) -> str:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many open files; allow more (ulimit -n 65536), or use fewer --workers"
    if error.errno == errno.ENOMEM:
        return "memory: this machine's does not suffice; lower --batch-size or --workers"
    in_shared_memory = str(error.filename or "").startswith(str(_SHARED_MEMORY))
    if error.errno == errno.ENOSPC and (in_shared_memory or (not error.filename and _is_full(_SHARED_MEMORY))):
        return f"{error.filename or _SHARED_MEMORY}: {error.strerror}; {_ENLARGE}"
    if error.strerror:
        return f"{error.filename or 'writing'}: {error.strerror}; mend that and run again"
    return str(error)


def _is_full(folder: Path) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free < 2**16


def _is_of_a_peer(error: RuntimeError) -> bool:
    """Tell errors of the collectives, which torch raises where one of the processes is gone, by type or by words."""
    distributed = sys.modules.get("torch.distributed")
    types = tuple(
        getattr(distributed, name) for name in ("DistError", "DistBackendError") if hasattr(distributed, name)
    )
    return isinstance(error, types) or "gloo" in str(error) or "Connection closed by peer" in str(error)
