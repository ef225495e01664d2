"""What the README tells people to type: each command of its table is one that the command line takes."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
import timm

from distillcache.cli import main

ROOT = Path(__file__).parents[1]
ROWS = re.findall(r"^\| (Table [^|]+)\|(.+)\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
COMMANDS = [
    (row.strip(), command) for row, cell in ROWS for command in re.findall(r"`((?:make|distillcache) [^`]+)`", cell)
]
SHARDS = {
    "SHARDS": "/data/imagenet-train-{000000..001023}.tar",
    "VAL_SHARDS": "/data/imagenet-val-{000000..000049}.tar",
}


def test_the_table_has_every_row_of_the_paper() -> None:
    assert {int(row.split()[1].rstrip(",:")) for row, _ in ROWS} >= {2, 3, 4, 5, 7, 8, 10} and len(COMMANDS) >= 20


@pytest.mark.parametrize(("row", "command"), COMMANDS, ids=[f"{row}: {c[:60]}" for row, c in COMMANDS])
def test_a_command_of_the_readme_is_understood(row: str, command: str) -> None:
    """`make -n` says what a target would run; click parses that; timm knows its models and their weights."""
    lines = [command]
    if command.startswith("make "):
        done = subprocess.run(
            ["sh", "-c", command.replace("make ", "make -n ", 1)],
            cwd=ROOT, env={**os.environ, **SHARDS}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stdout.replace("\\\n", " ").splitlines() if "bin/distillcache" in line]
    assert lines
    for line in lines:
        name, *arguments = shlex.split(
            line.replace("$SHARDS", SHARDS["SHARDS"]).replace("$VAL_SHARDS", SHARDS["VAL_SHARDS"])
        )[1:]
        parsed = main.commands[name].make_context(name, arguments, parent=click.Context(main)).params
        assert parsed["shards"]
        if name == "train-student":
            assert timm.is_model(parsed["model"]) and parsed["out"]
        if name == "cache-teacher":
            assert parsed["teacher"] in timm.list_pretrained()
