"""What the README tells people to type: each command of its table is one that the command line takes."""

import ast
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import timm

from distillcache.cache.store import Store
from distillcache.cli import main

from .conftest import run

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
        parsed = (
            main.commands[name]
            .make_context(name, arguments, parent=click.Context(main, **main.context_settings))
            .params
        )
        assert parsed["shards"]
        if name == "train-student":
            assert timm.is_model(parsed["model"]) and parsed["out"]
        if name == "cache-teacher":
            assert parsed["teacher"] in timm.list_pretrained()


def test_make_help_lists_every_target_and_variable() -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert targets and [name for name in targets[1].split() if not re.search(rf"^{name} +\w", text, re.MULTILINE)] == []
    internal = {"BIN", "RUN", "DIGITS", "NEEDS_TEACHER", "NEEDS_CACHE", "MAKE"}
    used = set(re.findall(r"\$\((?:if )?\$?\(?([A-Z][A-Z_]+)\b", makefile)) | {"BENCH_SHARDS"}
    assert used > {"SHARDS", "SEEDS", "LR", "PYTHON"}
    assert {name for name in used - internal if not re.search(rf"\b{name}\b", text)} == set()


INTRODUCTION = """# Commands

Written by `python -m tests.test_docs`; a test compares it with the commands.

Your shell completes commands and options after one line in its start-up file: for bash in `~/.bashrc`, for zsh in
`~/.zshrc`; fish reads the last one's output from `~/.config/fish/completions/distillcache.fish`.

```sh
eval "$(_DISTILLCACHE_COMPLETE=bash_source distillcache)"
eval "$(_DISTILLCACHE_COMPLETE=zsh_source distillcache)"
_DISTILLCACHE_COMPLETE=fish_source distillcache
```
"""


def reference() -> str:
    """Return docs/commands.md: every command with its help, as the command line itself has it."""
    pages = [INTRODUCTION]

    def describe(command: click.Command, path: str) -> None:
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                describe(inner, f"{path} {name}")
            return
        context = click.Context(command, info_name=path, terminal_width=110, **main.context_settings)
        pages.append(f"## {path}\n```text\n{command.get_help(context).rstrip()}\n```\n")

    describe(main, "distillcache")
    return "\n".join(pages)


def test_every_command_and_option_is_in_the_docs() -> None:
    assert (ROOT / "docs" / "commands.md").read_text() == reference()


def test_every_inspect_command_is_explained() -> None:
    page = (ROOT / "docs" / "inspect.md").read_text()
    group = main.commands["inspect"]
    assert isinstance(group, click.Group)
    assert [name for name in group.commands if f"`{name} " not in page] == []


def test_the_python_of_the_docs_runs(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(store.path, tmp_path / "regnety.zarr")
    assert run("inspect", "export", store.path, tmp_path / "labels.parquet", "--mixes").exit_code == 0
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "inspect.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        names: dict[str, object] = {}
        for statement in ast.parse(block).body:
            source = ast.unparse(statement)
            if source.startswith("duckdb."):  # which runs nothing before it is asked for rows
                assert eval(source, names).fetchall()
            else:
                exec(source, names)


if __name__ == "__main__":
    (ROOT / "docs" / "commands.md").write_text(reference())
