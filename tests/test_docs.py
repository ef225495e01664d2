"""What the docs say: commands are understood, Python runs, links lead somewhere, tables and pictures are today's."""

import ast
import dataclasses
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import timm
from click.testing import CliRunner

from distillcache.cache.store import Store
from distillcache.cli import main
from distillcache.datasets.augment import own, recipes
from distillcache.datasets.augment.recipes import RANGES, Recipe, named
from distillcache.datasets.shards.files import expand
from distillcache.models.students import build_student
from distillcache.models.teachers import Teacher

from .conftest import CLASSES, cached, run

ROOT = Path(__file__).parents[1]
PAGES = {
    str(page.relative_to(ROOT)): page.read_text()
    for page in (*sorted(ROOT.glob("*.md")), *(ROOT / "docs").glob("*.md"))
}
ROWS = re.findall(r"^\| (Table [^|]+)\|(.+)\|$", PAGES["docs/paper.md"], re.MULTILINE)
COMMANDS = [
    (row.strip(), command) for row, cell in ROWS for command in re.findall(r"`((?:make|distillcache) [^`]+)`", cell)
]
BLOCKS = [(page, block) for page, text in PAGES.items() for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
OPTIONS = {
    option for command in (main, *main.commands.values()) for given in command.params for option in given.opts
} | {"--ntasks-per-node"}
SHARDS = {
    "SHARDS": "/data/imagenet-train-{000000..001023}.tar",
    "VAL_SHARDS": "/data/imagenet-val-{000000..000049}.tar",
}
STUB = """#!/bin/sh
{ basename "$0"; for argument in "$@"; do printf '%s\\n' "$argument"; done; echo; } >> "$SAID"
"""
MAKE = f"""#!/bin/sh -e
{shutil.which("make")} -n --no-print-directory RUN=distillcache BIN="${{0%/*}}" PYTHON=python "$@" > "$SAID.sh"
sed -i "/^make.*: /d" "$SAID.sh"
sh -e "$SAID.sh"
"""


def typed(text: str, folder: Path, **variables: str) -> list[list[str]]:
    """Return what a shell would run of `text`, and of the targets of make in it: programs with their arguments."""
    for name in (
        "distillcache",
        "torchrun",
        "sbatch",
        "python",
        "pip",
        "ruff",
        "mypy",
        "rm",
        "mkdir",
        "ln",
        "touch",
        "git",
    ):
        (folder / name).write_text(STUB)
    (folder / "make").write_text(MAKE)
    for program in folder.iterdir():
        program.chmod(0o755)
    said = folder.parent / "said"
    said.write_text("")
    environment = {**os.environ, "SAID": str(said), **SHARDS, **variables, "PATH": f"{folder}:{os.environ['PATH']}"}
    text = text.replace("PATH=$PWD/.venv/bin:$PATH", "")  # what would find the real programs
    done = subprocess.run(["sh", "-e", "-c", text], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [call.split("\n") for call in said.read_text().split("\n\n") if call]


def parsed(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """Return the command that `arguments` name, and its parameters as click understands them."""
    command: click.Command = main
    while arguments[0] == "--import":
        arguments = arguments[2:]
    while isinstance(command, click.Group):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    context = command.make_context(command.name, list(arguments), parent=click.Context(main, **main.context_settings))
    return str(command.name), context.params


def ours(calls: list[list[str]]) -> Iterator[list[str]]:
    """Yield the arguments of every call of the command line."""
    for program, *arguments in calls:
        if program == "distillcache" and arguments:  # without any, it completes for a shell
            yield arguments
        elif program == "torchrun":
            name = "distillcache.cli" if "distillcache.cli" in arguments else "distillcache"
            yield arguments[arguments.index(name) + 1 :]


def test_the_table_has_every_row_of_the_paper() -> None:
    assert {int(row.split()[1].rstrip(",:")) for row, _ in ROWS} >= {2, 3, 4, 5, 7, 8, 10} and len(COMMANDS) >= 20


@pytest.mark.parametrize(("row", "command"), COMMANDS, ids=[f"{row}: {c[:60]}" for row, c in COMMANDS])
def test_a_command_of_the_paper_is_understood(row: str, command: str, tmp_path: Path) -> None:
    """make says what a target would run; click parses that; timm knows its models and their weights."""
    (tmp_path / "bin").mkdir()
    calls = list(ours(typed(command, tmp_path / "bin")))
    assert calls
    for arguments in calls:
        name, options = parsed(arguments)
        assert options["shards"]
        if name == "train-student":
            assert timm.is_model(options["model"]) and options["out"]
        if name == "cache-teacher":
            assert {*options["teacher"]} <= {*timm.list_pretrained()}


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=[f"{page}: {b[:40]!r}" for page, b in BLOCKS])
def test_what_a_page_tells_to_type_is_understood(page: str, block: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    calls = typed(block, tmp_path / "bin", CACHE="regnety.zarr")
    for arguments in ours(calls):
        parsed(arguments)
    for program, *arguments in calls:
        if program == "python" and arguments[0].endswith(".py"):
            assert (ROOT / arguments[0]).is_file()
    assert calls or "export" in block


def test_scripts_for_a_cluster_are_shell() -> None:
    """`make test-slurm` runs them; here a shell reads them, and click the commands in them."""
    scripts = sorted((ROOT / "examples" / "slurm").glob("*.sbatch"))
    assert [script.name for script in scripts if f"`{script.name}`" not in PAGES["docs/cluster.md"]] == []
    for script in scripts:
        assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
        words = shlex.split(script.read_text().replace("\\\n", " "), comments=True)
        command, rest = words[words.index("distillcache", 1) + 1], words[words.index("distillcache", 1) + 1 :]
        assert command in main.commands and {w for w in rest if w.startswith("--") and "=" not in w} <= OPTIONS


def test_make_help_lists_every_target_and_variable() -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert targets and [name for name in targets[1].split() if not re.search(rf"^{name} +\w", text, re.MULTILINE)] == []
    internal = {"BIN", "RUN", "RANKS", "DIGITS", "NEEDS_TEACHER", "NEEDS_CACHE", "MAKE"}
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

`distillcache --import MODULE COMMAND ...` first imports a module of yours, which may register [ops and
recipes](recipes.md#an-op-of-your-own).
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
    assert PAGES["docs/commands.md"] == reference()


def test_every_inspect_command_is_explained() -> None:
    group = main.commands["inspect"]
    assert isinstance(group, click.Group)
    assert [name for name in group.commands if f"`{name} " not in PAGES["docs/inspect.md"]] == []


@pytest.mark.parametrize("page", ["docs/inspect.md", "docs/design.md"])
def test_the_python_of_a_page_runs(
    page: str, store: Store, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(store.path, tmp_path / "regnety.zarr")
    for shard in Path(shards).parent.glob(Path(shards).name):
        shutil.copy(shard, tmp_path)
    assert run("inspect", "export", store.path, tmp_path / "labels.parquet", "--mixes").exit_code == 0
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
    assert blocks
    for block in blocks:
        names: dict[str, object] = {}
        for statement in ast.parse(block).body:
            source = ast.unparse(statement)
            if source.startswith("duckdb."):  # which runs nothing before it is asked for rows
                assert eval(source, names).fetchall()
            else:
                exec(source, names)


def test_the_store_is_as_the_design_says(
    store: Store, shards: str, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example finds the image, the words of a view, and the arrays of the table with their types and chunks."""
    import zarr

    from distillcache.datasets.augment.philox import Stream, words

    page = PAGES["docs/design.md"]
    shutil.copytree(store.path, tmp_path / "regnety.zarr")
    shutil.copy(Path(shards).parent / "train-1.tar", tmp_path)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], found)
    samples = store.samples([str(path) for path in sorted(Path(shards).parent.glob("*.tar"))])
    assert found["image"] == samples.read(1, 3)
    assert np.array_equal(found["words"], words(int(store.seeds(1)[3]), Stream.VIEW, (4, 0, 0), 5))
    quantised = cached(tmp_path / "quantised.zarr", expand(shards), teacher, views=3, logits=8)
    group = {name: array for one in (quantised, store) for name, array in zarr.open_group(one.path).arrays()}
    rows = [[cell.strip(" `") for cell in row.split("|")[1:-1]] for row in page.splitlines() if row.startswith("| `")]
    table = {row[0]: row for row in rows if len(row) == 6}
    arrays = {name.strip("` "): row for names, row in table.items() for name in names.split(",")}
    assert set(arrays) == set(group)
    sizes = {
        "B": store.manifest.block,
        "N": 12,
        "K": 2,
        "D": CLASSES,
        "S": 2,
        "256": 2,
        "1": 1,
    }  # of fewer than 256 shards
    for name, (_, dims, dtype, chunk, *_) in arrays.items():
        array: Any = group[name]
        assert list(array.metadata.dimension_names) == dims.split(", ")
        if chunk != "whole":
            assert array.chunks == tuple(sizes[size] for size in chunk.strip("()").split(", ")), name
        if dtype.split(", ")[0] in ("uint16", "uint64", "int32", "float16", "uint8", "float32") and "," not in dtype:
            assert str(array.dtype) == dtype, name
    attributes = {name.strip("` ") for row in rows if len(row) == 2 for name in row[0].split(",")}
    assert set(json.loads((store.path / "zarr.json").read_text())["attributes"]) <= attributes


def test_every_link_leads_somewhere() -> None:
    lost = []
    for page, text in PAGES.items():
        targets = re.findall(r"\]\((?!https?:)([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
        for target in targets:
            file, _, anchor = target.partition("#")
            path = (ROOT / page).parent / file if file else ROOT / page
            if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
                lost.append((page, target))
    assert lost == []


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_files_that_pages_name_are_there() -> None:
    pattern = (
        r"`((?:commands|train|replay|inspection|cache|models|datasets|runtime|tests|bench|docs|examples)/[\w/.]*)`"
    )
    named = [(page, name) for page, text in PAGES.items() for name in re.findall(pattern, text)]
    assert len(named) > 40
    assert [(page, name) for page, name in named if not (ROOT / name).exists()] == []


def test_every_variable_of_make_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text()
    variables = set(re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE) + re.findall(r"\$\(([A-Z_]+):%", makefile))
    assert len(variables) > 15
    assert [name for name in sorted(variables) if f"`{name}`" not in PAGES["docs/variables.md"]] == []


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 90


def test_when_it_pays_is_counted_from_the_benchmarks() -> None:
    pays = runpy.run_path(str(ROOT / "bench" / "pays.py"))
    assert pays["table"](*pays["measured"](PAGES["docs/benchmarks.md"])) in PAGES["README.md"]
    assert CliRunner().invoke(pays["main"], ["100", "50"]).exit_code == 0
    for wrong in (["1"], ["x", "2"], ["0", "1"]):
        assert CliRunner().invoke(pays["main"], wrong).exit_code == 2


def test_the_readmes_figures_beside_others_are_those_of_the_benchmarks() -> None:
    section = PAGES["README.md"].partition("## Beside others")[2].partition("\n## ")[0]
    figures = re.findall(r"\b\d[\d,.]*\d\b", section.partition("|")[2].partition("\n\nWhat students")[0])
    assert len(figures) >= 8
    page = PAGES["docs/benchmarks.md"]
    assert [figure for figure in figures if not re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d])", page)] == []


def test_every_peer_of_the_picture_is_in_the_benchmarks() -> None:
    picture = runpy.run_path(str(ROOT / "bench" / "picture.py"))
    assert min(picture["times"](PAGES["docs/benchmarks.md"]).values()) > 0


def test_the_picture_of_the_stages_is_what_its_script_draws() -> None:
    stages = runpy.run_path(str(ROOT / "docs" / "stages.py"))
    for name in ("light", "dark"):
        assert (ROOT / "docs" / f"stages-{name}.svg").read_text() == stages["draw"](stages[name.upper()])


def test_every_field_of_a_recipe_is_in_the_table_with_its_default_and_range() -> None:
    section = PAGES["docs/recipes.md"].partition("## Every field")[2].partition("\n## ")[0]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in section.splitlines() if "| `" in line]
    deit = named("deit")
    assert [row[0] for row in rows] == [f.name for f in dataclasses.fields(Recipe) if f.name != "name"]
    for name, default, limits, _ in rows:
        value = getattr(deit, name)
        values = value if isinstance(value, tuple) else (value,)
        shown = ",".join(
            f"{v:.5g}" if isinstance(v, (int, float)) and not isinstance(v, bool) else str(v) for v in values
        )
        assert (default == shown.lower()) or (name == "own_ops" and default == "none"), (name, shown)
        if name in RANGES:
            assert limits.removesuffix(", even") == f"{RANGES[name][0]:g} to {RANGES[name][1]:g}", name


def test_the_first_use_of_the_api_runs_as_the_pages_write_it(
    store: Store, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(shards).parent)
    first, teacher, student = re.findall(r"```python\n(.*?)```", PAGES["docs/api.md"], re.DOTALL)
    steps: list[int] = []
    seen = {"train_on": lambda image, target, label: steps.append(len(image))}
    for page in (first, re.findall(r"```python\n(.*?)```", PAGES["README.md"], re.DOTALL)[0]):
        steps.clear()
        small = page.replace("1024", "8").replace("300", "6")
        exec(small.replace("regnety.zarr", str(store.path)), seen)
        assert steps == [8] * 16
    few = teacher.replace("views=300", "views=3, image_size=32").replace("mine.zarr", str(tmp_path / "m.zarr"))
    made: dict[str, Any] = {}
    exec(few, made)
    assert made["store"].views == 3
    (tmp_path / "my_own_models.py").write_text(student)
    monkeypatch.syspath_prepend(str(tmp_path))
    built = build_student("my_own_models:build", classes=5, seed=0, width=96)
    assert built.heads == ("class",) and built.model[-1].weight.shape == (5, 96)


def test_ops_of_ones_own_are_as_the_page_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    blocks = re.findall(r"```python\n(import.*?)```", PAGES["docs/recipes.md"], re.DOTALL)
    assert len(blocks) == 2
    for number, block in enumerate(blocks):
        (tmp_path / f"page_op_{number}.py").write_text(block)
        __import__(f"page_op_{number}")
    assert sys.modules["page_op_0"].golden() == 252552 and len(blocks[0].splitlines()) <= 30
    seed = 2**32 - 5
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    once, again = (own.apply_own(image, "Perspective", seed) for _ in range(2))
    assert np.array_equal(once, again) and not np.array_equal(once, own.apply_own(image, "Perspective", seed - 1))
    for name in ("Vignette", "Perspective"):
        own._REGISTERED.pop(name)
    recipes._RECIPES.pop("framed")


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="SKIPPED: no Sphinx; pip install 'distillcache[docs]'")
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "site.py", tmp_path / "site"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "searchindex.js").exists()
    assert "module-distillcache.cache.store" in (tmp_path / "site" / "api" / "cache.html").read_text()


if __name__ == "__main__":
    (ROOT / "docs" / "commands.md").write_text(reference())
