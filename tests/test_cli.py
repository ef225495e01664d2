"""The command line as a user meets it: help, one-line errors, looking into a store."""

import contextlib
import json
from pathlib import Path

import click
import pytest
import xarray
import zarr
from click.testing import CliRunner
from PIL import Image

from distillcache.cache.store import Store
from distillcache.cli import main
from distillcache.commands.paths import LOCAL_FOLDER
from distillcache.commands.progress import bar

from .conftest import CLASSES, run


def commands(group: click.Group = main, name: str = "distillcache") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for command in group.commands.values():
        path = f"{name} {command.name}"
        found |= commands(command, path) if isinstance(command, click.Group) else {path: command}
    return found


@pytest.mark.parametrize("path", commands())
def test_every_command_has_help_an_example_and_documented_options(path: str) -> None:
    command = commands()[path]
    text = run(*path.split()[1:], "--help").output
    assert command.help and "Example: distillcache" in text
    undocumented = [p.name for p in command.params if isinstance(p, click.Option) and not (p.help or p.show_default)]
    assert not undocumented


PATHS = [
    (path, parameter)
    for path, command in commands().items()
    for parameter in command.params
    if parameter.type is LOCAL_FOLDER
]


@pytest.mark.parametrize(("path", "parameter"), PATHS, ids=[f"{path} {p.name}" for path, p in PATHS])
def test_a_path_on_another_machine_is_refused_in_a_line(
    path: str, parameter: click.Parameter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [p for p in commands()[path].params if isinstance(p, click.Argument) and p.required]
    given = ["s3://bucket/a" if p is parameter else "a" for p in arguments]
    if isinstance(parameter, click.Option):
        given += [parameter.opts[0], "s3://bucket/a"]
    done = run(*path.split()[1:], *given)
    expected = "expected a path on this machine, found s3://bucket/a; name one, and copy between the two"
    assert done.exit_code == 2 and done.output == f"distillcache: {parameter.opts[0].lstrip('-')}: {expected}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("group", [(), ("inspect",)])
def test_help_lists_the_commands_in_the_order_of_use_with_a_whole_sentence_each(group: tuple[str, ...]) -> None:
    text = run(*group, "--help").output
    names = [path.split()[-1] for path in commands() if path.split()[1:-1] == list(group)]
    places = [text.index(f"\n  {name} ") for name in names]
    assert names and places == sorted(places) and "..." not in text.replace("[ARGS]...", "")
    if not group:
        assert names[0] == "make-shards" and names.index("cache-teacher") < names.index("train-student")
        assert places[0] > text.index("Shards and teacher, where you have none:")


def test_a_shell_completes_commands_and_options() -> None:
    words = {"COMP_WORDS": "distillcache train-s", "COMP_CWORD": "1", "_DISTILLCACHE_COMPLETE": "bash_complete"}
    done = CliRunner(env=words).invoke(main, prog_name="distillcache")
    assert done.output == "plain,train-student\n"


def test_a_bar_ends_at_its_total(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (None, ValueError):
        with contextlib.suppress(ValueError), bar("work", 10, "views") as shown:
            shown.start_t -= 4  # of shorter work nothing is shown
            shown.start_at(3)
            shown.advance(5)
            if error:
                raise error
        assert ("work: 8/10" if error else "work: 8/8") in capsys.readouterr().err.splitlines()[-1]


def test_of_what_is_done_at_once_a_bar_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("work", None, "shards") as shown:
        shown.start_t -= 60  # finding out how much there is to do may take long
        shown.start_at(0, 2)
        shown.advance(2)
    assert capsys.readouterr().err == ""


def test_info_counts_labels_and_bytes(store: Store) -> None:
    facts = json.loads(run("inspect", "info", store.path, "--json").output)
    assert (facts["samples"], facts["views"], facts["labels"], facts["labels_missing"]) == (23, 6, 138, 0)
    files = [f for f in store.path.rglob("*") if f.is_file() and f.parent != store.path]
    assert facts["bytes"] == sum(f.stat().st_size for f in files)
    assert facts["teacher"]["sha256"] == store.manifest.teacher.sha256 and facts["recipe"]["name"] == "deit"
    text = run("inspect", "info", store.path).output
    assert "23 samples" in text and "6 a sample" in text


def test_label_prints_each_view_with_partner_and_mix(store: Store) -> None:
    found = json.loads(run("inspect", "label", store.path, "photo104", "--json").output)
    labels = store.read(range(6), 1)
    assert [view["label"] for view in found["views"]] == labels.label[:, 4].tolist()
    assert [view["check"] for view in found["views"]] == labels.check[:, 4].tolist()
    assert found["target"] == (5 + 4) % CLASSES and found["target_name"] == f"class {found['target']}"
    for view in found["views"]:
        if view["partner"]:
            other = json.loads(run("inspect", "label", store.path, view["partner"], "--json").output)
            assert other["views"][view["view"]]["partner"] == "photo104"
            assert other["views"][view["view"]]["lam"] == view["lam"]
        assert len(view["topk"]) == 2 and view["topk"][0][0] == view["label"]
    text = run("inspect", "label", store.path, "train-1.tar/photo104").output
    assert "photo104 in train-1.tar" in text and len(text.splitlines()) == 5 + 6 + 2 + 6


def test_show_draws_the_views_that_the_teacher_saw(store: Store, shards: str, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    found = run("inspect", "show", store.path, "photo003", "photo101", "--shards", shards, "--out", out, "--views", 4)
    assert found.exit_code == 0, found.output
    grid = Image.open(out)
    assert grid.width > 5 * 96 and len(grid.getcolors(1 << 20) or []) > 1000


def test_the_store_opens_in_xarray_and_plain_zarr(store: Store) -> None:
    dataset = xarray.open_zarr(store.path, consolidated=False)
    assert dict(dataset.label.sizes) == {"view": 6, "shard": 2, "sample": 12} and dataset.label.dtype == "uint16"
    agreement = (dataset.label == dataset.target).where(dataset.label != 65535).mean().item()
    real = dataset.key.values != ""
    assert agreement == pytest.approx((dataset.label.values == dataset.target.values)[:, real].mean())
    group = zarr.open_group(store.path, mode="r")
    assert group["label"].metadata.dimension_names == ("view", "shard", "sample")
    assert group["label"][:, 0, 3].tolist() == dataset.label[:, 0, 3].values.tolist()


@pytest.mark.parametrize(("option", "kind"), [("--cache", "file"), ("--out", "dir")])
def test_a_shell_completes_paths(option: str, kind: str) -> None:
    words = {"COMP_WORDS": f"distillcache train-student {option} ru", "COMP_CWORD": "3"}
    env = words | {"_DISTILLCACHE_COMPLETE": "bash_complete"}
    done = CliRunner(env=env).invoke(main, prog_name="distillcache")
    assert done.output == f"{kind},ru\n"
