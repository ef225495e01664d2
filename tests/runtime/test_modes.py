"""Saved files are open to whom the user's umask lets in."""

import os
from pathlib import Path

import pytest

from ..conftest import run


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_every_file_of_a_run_has_the_umasks_mode(umask: int, mode: int, shards: str, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        small = ("--model", "test_vit", "--epochs", 1, "--batch-size", 8, "--image-size", 160, "--device", "cpu")
        assert run("train-teacher", "--shards", shards, "--out", tmp_path / "teacher", *small).exit_code == 0
        given = ("--shards", shards, "--cache", tmp_path / "store.zarr", "--device", "cpu")
        teacher = ("--teacher", tmp_path / "teacher", "--recipe", "none", "--views", 1, "--image-size", 160)
        done = run("cache-teacher", *given, *teacher)
        assert done.exit_code == 0, done.output
        student = ("--model", "test_vit", "--epochs", 1, "--batch-size", 8, "--warmup-epochs", 0, "--ema-decay", 0.9)
        done = run("train-student", *given, "--out", tmp_path / "student", "--val-shards", shards, *student)
        assert done.exit_code == 0, done.output
        for command, name in (("stats", "--plot"), ("report", "--out")):
            out = tmp_path / {"stats": "stats.png", "report": "report.html"}[command]
            more = ("--shards", shards, "--samples", 1) if command == "report" else ()
            done = run("inspect", command, tmp_path / "store.zarr", name, out, *more)
            assert done.exit_code == 0, done.output
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"model.safetensors", "student.safetensors", "ema.safetensors", "stats.png"}
    assert {str(path.relative_to(tmp_path)): oct(path.stat().st_mode & 0o777) for path in files} == {
        str(path.relative_to(tmp_path)): oct(mode) for path in files
    }
