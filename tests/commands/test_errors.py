"""What is said of errors that come from the machine: one line each, which says what to do."""

import errno
import os
import pickle
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distillcache.commands.errors import fitted, line_of
from distillcache.runtime.devices import find_device
from distillcache.runtime.errors import InputError

from ..conftest import run


def test_a_long_message_keeps_its_beginning_and_its_remedy() -> None:
    line = fitted("shards: " + "x" * 500 + "; name them all")
    assert len(line) <= 300 and line.startswith("shards: x") and line.endswith("; name them all") and "…" in line
    assert fitted("a\n b") == "a b"


def test_an_error_names_parameters_and_its_line_names_options() -> None:
    error = InputError("`batch_size`", "at most 8", 9, "or `reuse_views=True`, `amp=False`, `topk=K`, another `out`")
    assert str(error) == "`batch_size`: expected at most 8, found 9; " + error.remedy
    line = "batch-size: expected at most 8, found 9; or --reuse-views, --no-amp, --topk K, another --out"
    assert line_of(error) == (line, 2)


def test_an_error_keeps_its_facts_from_a_worker_to_the_line() -> None:
    inner = pickle.loads(pickle.dumps(InputError("", "a JPEG", "a text")))
    outer = inner.within("key x", "mend it").within("shard a.tar", "never said: a remedy is known")
    assert str(outer) == "shard a.tar, key x: expected a JPEG, found a text; mend it"


def test_torchs_own_lack_of_memory_is_one_line() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    told = line_of(error.value)
    assert told == ("memory: this machine's does not suffice; lower --batch-size or --workers", 2)
    assert line_of(MemoryError()) == told


@pytest.mark.parametrize("name", ["", "/dev/shm/nccl-abc"])
def test_a_full_shared_memory_is_said_with_how_to_enlarge_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: _Full())
    line, code = line_of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name or None)) or ("", 0)
    assert code == 2 and line.startswith(name or "/dev/shm") and "docker run --shm-size=1g" in line


class _Full:
    free = 0


def test_too_many_open_files_is_one_line(shards: str, tmp_path: Path, teacher_folder: Path) -> None:
    """A real process that may open 64 files, with more workers than that allows."""
    done = subprocess.run(
        [
            sys.executable, "-m", "distillcache.cli", "cache-teacher", "--shards", shards, "--device", "cpu",
            "--cache", str(tmp_path / "c.zarr"), "--teacher", str(teacher_folder), "--image-size", "32",
            "--workers", "60",
        ],
        capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if not re.match(r"[\w-]+: \d+/", line)]
    assert done.returncode == 2
    assert lines == ["distillcache: too many open files; allow more (ulimit -n 65536), or use fewer --workers"]


def test_a_server_that_fails_is_one_line() -> None:
    error = type("ServerDisconnectedError", (Exception,), {"__module__": "aiohttp.client_exceptions"})
    line, code = line_of(error("gone")) or ("", 0)
    assert code == 2 and line.startswith("a server did not answer as expected (ServerDisconnectedError")


@pytest.mark.parametrize(
    ("command", "where"),
    [
        (("inspect", "info", ""), "cache: expected a path"),
        (("train-student", "--shards", "a.tar", "--out", "o", "--model", ""), "model: expected a name"),
        (("make-shards", "", "o"), "source: expected a name"),
    ],
)
def test_a_variable_that_was_never_set_is_no_path_and_no_name(command: tuple[str, ...], where: str) -> None:
    refused = run(*command)
    line = f"distillcache: {where}, found an empty one; is a variable of the shell not set?"
    assert (refused.exit_code, refused.stderr) == (2, line + "\n")


def test_a_folder_of_a_run_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "o").touch()
    for command in (("make-shards", "digits"), ("train-teacher", "--shards", "a.tar", "--model", "m", "--out")):
        refused = run(*command, tmp_path / "o")
        assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
        assert f"out: expected a folder, found the file {tmp_path}/o; name another" in refused.stderr


def test_a_device_that_computes_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="expected one that this machine has, found 'meta'"):
        find_device("meta")
