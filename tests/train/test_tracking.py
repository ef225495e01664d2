"""What training shows: figures of steps, to a file and to trackers; and options out of a file."""

import csv
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distillcache.cache.store import Store
from distillcache.train.loop import Training
from distillcache.train.tracking import StepLog

from ..conftest import SIZE, run

pytestmark = pytest.mark.usefixtures("one_thread")

Told = Callable[[], list[dict[str, Any]]]
STUB = """
import json, pathlib
def note(**what): pathlib.Path("noted.jsonl").open("a").write(json.dumps(what) + "\\n")
class Run:
    step = 4  # what a server has of a run that was killed
    def define_metric(self, names, step_metric): note(names=names, over=step_metric)
    def log(self, figures, step):
        assert step >= self.step or "step" not in figures, "refused"
        note(step=figures.get("step", step), figures=sorted(figures))
    def finish(self): note(finished=True)
def init(project, name, config, resume, id=None):
    print("hello")
    note(project=project, name=name, id=id, lr=config["lr"], resume=resume)
    return Run()
"""


@pytest.fixture
def command(store: Store, shards: str) -> list[object]:
    small = ["--model-kwargs", f"img_size={SIZE}", "embed_dim=24", "depth=1"]
    options = ["--epochs", 2, "--batch-size", 8, "--warmup-epochs", 0, "--device", "cpu", "--val-shards", shards]
    return ["train-student", "--shards", shards, "--cache", store.path, *options, *small]


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """What a stub of each tracker's module is told, since it was last asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("wandb", "trackio"):
        (tmp_path / f"{module}.py").write_text(STUB)
        monkeypatch.delitem(sys.modules, module, raising=False)  # timm imports wandb where it is installed

    def told() -> list[dict[str, Any]]:
        lines = (tmp_path / "noted.jsonl").read_text().splitlines()
        (tmp_path / "noted.jsonl").unlink()
        return [json.loads(line) for line in lines]

    yield told
    for module in ("wandb", "trackio"):
        sys.modules.pop(module, None)


def events_in(folder: Path) -> dict[str, list[int]]:
    """The steps of each of TensorBoard's figures."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def interrupted(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Have the next run hear Ctrl-C in the step of that number."""
    original, count = Training._step, itertools.count(1)

    def one(self: Training, *arguments: Any) -> torch.Tensor:
        if next(count) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(Training, "_step", one)


def test_every_step_is_in_a_file_and_sent_to_trackers(command: list[object], noted: Told, tmp_path: Path) -> None:
    done = run(*command, "--out", tmp_path / "out", "--log-every", 1, "--wandb", "mine")
    assert done.exit_code == 0, done.stderr
    rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader((tmp_path / "out" / "steps.csv").open())]
    epochs = [
        {k: float(v) for k, v in row.items()} for row in csv.DictReader((tmp_path / "out" / "metrics.csv").open())
    ]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for epoch in epochs:
        mine = [row for row in rows if row["epoch"] == epoch["epoch"]]
        for loss in ("loss", "loss_class", "loss_distill"):
            assert sum(row[loss] for row in mine) / len(mine) == pytest.approx(epoch[loss], rel=1e-5)
        for head in ("class", "distill", "both"):
            assert 0 <= epoch[f"top1_{head}"] <= epoch[f"top5_{head}"] == 100  # of five classes
            assert 1 < epoch[f"val_loss_{head}"] < 3
    assert all(row["grad_norm"] > 0 and row["data_seconds"] >= 0 and row["compute_seconds"] > 0 for row in rows)
    begun, over, *told, last = noted()
    assert begun | {"id": 0} == {"project": "mine", "name": "out", "id": 0, "lr": 5e-4, "resume": "allow"}
    assert over == {"names": "*", "over": "step"} and last == {"finished": True}
    assert [each["step"] for each in told] == [1, 2, 3, 3, 4, 5, 6, 6]
    steps, epochs = told[0]["figures"], told[3]["figures"]
    assert {"step/loss", "step/grad_norm"} < set(steps) and {"loss", "top5/both"} < set(epochs)
    assert set(steps) & set(epochs) == {"step"}, "of one name would be two curves in one"


def test_a_run_that_goes_on_is_the_same_to_trackers_and_has_each_step_once(
    command: list[object], noted: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trackers = ["--log-every", 1, "--wandb", "mine", "--trackio", "ours"]
    with monkeypatch.context() as patch:
        interrupted(patch, 5)
        stopped = run(*command, "--out", tmp_path / "out", *trackers)
    assert stopped.exit_code == 130 and "hello" not in stopped.stdout[stopped.stdout.index("hello") + 5 :]
    first = noted()
    resumed = run(*command, "--out", tmp_path / "out", *trackers)
    assert resumed.exit_code == 0, resumed.stderr
    rest = noted()
    [wandb, trackio] = [each for each in first if "project" in each]
    assert [each for each in rest if "project" in each] == [wandb, trackio] and trackio["name"] == f"out-{wandb['id']}"
    for told, steps in ((first, [1, 2, 3, 3, 4, 5]), (rest, [6, 6])):
        assert [each["step"] for each in told if "step" in each] == [step for step in steps for _ in "12"]
        assert told[-2:] == [{"finished": True}] * 2
    events = events_in(tmp_path / "out")
    assert events["step/loss_distill"] == events["step/data_seconds"] == [1, 2, 3, 4, 5, 6]
    assert events["loss"] == events["top1/both"] == [3, 6]
    other = run(*command, "--out", tmp_path / "other" / "out", *trackers)
    assert other.exit_code == 0 and noted()[0]["id"] != wandb["id"]


def test_what_a_killed_run_does_again_is_in_tensorboard_once(
    command: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupted(patch, 6)
        patch.setattr(Training, "_stop", lambda *_: (_ for _ in ()).throw(SystemExit(9)))  # nothing is saved
        assert run(*command, "--out", tmp_path / "out", "--log-every", 1).exit_code == 9
    assert events_in(tmp_path / "out")["step/loss"] == [1, 2, 3, 4, 5, 6]
    assert run(*command, "--out", tmp_path / "out", "--log-every", 1).exit_code == 0
    assert events_in(tmp_path / "out")["step/loss"] == [1, 2, 3, 4, 5, 6] and events_in(tmp_path / "out")["lr"] == [
        3,
        6,
    ]


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


def test_a_tracker_that_cannot_begin_is_named_with_what_to_do(
    command: list[object], noted: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb.py").write_text("def init(**_): raise RuntimeError('No API key configured.')")
    monkeypatch.setitem(sys.modules, "trackio", None)
    for module, line in {
        "wandb": "wandb: expected a run that it begins, found RuntimeError: No API key configured.",
        "trackio": "trackio: expected the module trackio, found none; run: pip install trackio",
    }.items():
        done = run(*command, "--out", tmp_path / "out", f"--{module}", "mine")
        assert done.exit_code == 2 and line in done.stderr and not (tmp_path / "out").exists(), done.stderr
