"""What training shows: figures of steps, to a file and to trackers; and options out of a file."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from distillcache.cache.store import Store
from distillcache.train.tracking import StepLog

from ..conftest import SIZE, run
from .test_trainer import one_thread  # noqa: F401

STUB = """
import json, pathlib
def note(**what): pathlib.Path("noted.jsonl").open("a").write(json.dumps(what) + "\\n")
def init(project, name, config, resume): note(project=project, name=name, lr=config["lr"], resume=resume)
def log(figures, step): note(step=step, figures=sorted(figures))
def finish(): note(finished=True)
"""


@pytest.fixture
def command(store: Store, shards: str) -> list[object]:
    small = ["--model-kwargs", f"img_size={SIZE}", "embed_dim=24", "depth=1"]
    options = ["--epochs", 2, "--batch-size", 8, "--warmup-epochs", 0, "--device", "cpu", "--val-shards", shards]
    return ["train-student", "--shards", shards, "--cache", store.path, *options, *small]


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    for module in ("wandb", "trackio"):
        (tmp_path / f"{module}.py").write_text(STUB)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for module in ("wandb", "trackio"):
        sys.modules.pop(module, None)


def test_every_step_is_in_a_file_and_sent_to_trackers(command: list[object], stubs: Path) -> None:
    done = run(*command, "--out", stubs / "out", "--log-every", 1, "--wandb", "mine")
    assert done.exit_code == 0, done.stderr
    rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader((stubs / "out" / "steps.csv").open())]
    epochs = [{k: float(v) for k, v in row.items()} for row in csv.DictReader((stubs / "out" / "metrics.csv").open())]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for epoch in epochs:
        mine = [row for row in rows if row["epoch"] == epoch["epoch"]]
        for loss in ("loss", "loss_class", "loss_distill"):
            assert sum(row[loss] for row in mine) / len(mine) == pytest.approx(epoch[loss], rel=1e-5)
        for head in ("class", "distill", "both"):
            assert 0 <= epoch[f"top1_{head}"] <= epoch[f"top5_{head}"] == 100  # of five classes
            assert 1 < epoch[f"val_loss_{head}"] < 3
    assert all(row["grad_norm"] > 0 and row["data_seconds"] >= 0 and row["compute_seconds"] > 0 for row in rows)
    noted = [json.loads(line) for line in (stubs / "noted.jsonl").read_text().splitlines()]
    assert noted[0] == {"project": "mine", "name": "out", "lr": 5e-4, "resume": "allow"}
    assert [note.get("step") for note in noted[1:-1]] == [1, 2, 3, 3, 4, 5, 6, 6] and noted[-1] == {"finished": True}
    assert "grad_norm" in noted[1]["figures"] and "top5_both" in noted[4]["figures"]


def test_the_norm_is_the_gradients_before_it_is_clipped(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    log = StepLog(2, tmp_path, (), model)
    for number in range(2):
        model.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        log.note_gradients(number)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        log.after_step(number, 0, torch.tensor([1.0, 2.0, 3.0]), 8, 0.1)
    log.flush()
    [row] = csv.DictReader((tmp_path / "steps.csv").open())
    StepLog(2, tmp_path, (), model, done=2)
    assert len((tmp_path / "steps.csv").read_text().splitlines()) == 2
    StepLog(2, tmp_path, (), model, done=1)  # who was killed after step 2 does it again
    assert len((tmp_path / "steps.csv").read_text().splitlines()) == 1
    assert float(row["grad_norm"]) == pytest.approx(8**0.5) and row["step"] == "2" and float(row["loss_distill"]) == 3


def test_a_runs_options_can_be_given_back(command: list[object], tmp_path: Path) -> None:
    assert run(*command, "--out", tmp_path / "one", "--smoothing", 0.2).exit_code == 0
    kept = tmp_path / "one" / "config.yaml"
    options = yaml.safe_load(kept.read_text())
    assert options["smoothing"] == 0.2 and options["model-kwargs"] == [f"img_size={SIZE}", "embed_dim=24", "depth=1"]
    again = run("train-student", "--config", kept, "--out", tmp_path / "two")
    assert again.exit_code == 0, again.stderr
    one, two = (load_file(tmp_path / name / "student.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    folder = run("--import", "json", "train-student", "--config", tmp_path / "one", "--out", tmp_path / "two")
    assert folder.exit_code == 0 and yaml.safe_load((tmp_path / "two" / "config.yaml").read_text())["import"] == [
        "json"
    ]
    kept.write_text(f"import: no_such_module\n{kept.read_text()}")
    absent = run("train-student", "--config", kept)
    assert absent.exit_code == 2 and "module no_such_module: expected one that can be imported" in absent.stderr
    kept.write_text(kept.read_text().partition("\n")[2])
    other = run("train-student", "--config", kept, "--out", tmp_path / "three", "--smoothing", 0)
    assert other.exit_code == 0
    three = load_file(tmp_path / "three" / "student.safetensors")
    assert not torch.equal(one["head.weight"], three["head.weight"]), "what is given counts for more than the file"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("smothing: 0.1", "config: expected options of train-student, found smothing; did you mean smoothing?"),
        ("- 1", "config: expected options and their values, found none in "),
        ("a: [", "config: expected a YAML file, found "),
    ],
)
def test_what_is_wrong_with_a_file_of_options_is_said_in_a_line(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    done = run("train-student", "--config", tmp_path / "c.yaml")
    assert done.exit_code == 2 and line in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_tracker_that_is_not_installed_is_named_with_what_installs_it(command: list[object], tmp_path: Path) -> None:
    done = run(*command, "--out", tmp_path / "out", "--trackio", "mine")
    assert done.exit_code == 2
    assert "trackio: expected the module trackio, found none; run: pip install trackio" in done.stderr
