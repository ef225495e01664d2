"""What people expect of a trainer: averages, clipping, parts of a step, a folder that says everything, a clean stop."""

import csv
import json
import os
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.utils import ModelEmaV3

from distillcache.cache.store import Store
from distillcache.commands.progress import Bar, bar
from distillcache.train import checkpoint
from distillcache.train.loop import Training
from distillcache.train.loss import Losses
from distillcache.train.run import run_training
from distillcache.train.stopping import NonFiniteLossError, Stopping

from ..conftest import OnAdvance, run
from .test_train import config, place, stored, student, train

pytestmark = pytest.mark.usefixtures("one_thread")


def weights(folder: Path, name: str = "student") -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.safetensors")


def test_a_step_in_parts_is_the_same_step(tmp_path: Path, store: Store, shards: str) -> None:
    for parts in (1, 3):  # three parts of a batch of eight are of different sizes
        c = config(store, drop_path=0.0, grad_accum_steps=parts)
        run_training(student(c), stored(store, shards), None, c, place(tmp_path / str(parts)))
    one, three = weights(tmp_path / "1"), weights(tmp_path / "3")
    assert all(torch.allclose(one[name], three[name], atol=2e-5) for name in one)


def test_clipping_bounds_the_gradients_norm(
    tmp_path: Path, store: Store, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: dict[float, list[float]] = {0.0: [], 0.01: []}
    original = torch.optim.AdamW.step
    for limit, noted in norms.items():

        def step(self: torch.optim.AdamW, *a: object, noted: list[float] = noted, **k: object) -> object:
            parameters = [p.grad for group in self.param_groups for p in group["params"]]
            noted.append(float(torch.stack([grad.norm() for grad in parameters]).norm()))
            return original(self, *a, **k)

        monkeypatch.setattr(torch.optim.AdamW, "step", step)
        c = config(store, clip_grad=limit)
        run_training(student(c), stored(store, shards), None, c, place(tmp_path / str(limit)))
    assert max(norms[0.01]) <= 0.01001 < min(norms[0.0])


def test_the_average_of_the_weights_is_timms_also_after_a_stop(
    tmp_path: Path, store: Store, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = config(store, ema_decay=0.7)
    data, reference = stored(store, shards), []
    original = Training._step

    def step(self: Training, *a: object) -> torch.Tensor:
        if not reference:
            reference.append(ModelEmaV3(self.model, decay=0.7))
        loss = original(self, *a)
        reference[0].update(self.model)
        return loss

    monkeypatch.setattr(Training, "_step", step)
    run_training(student(c), data, data.samples, c, place(tmp_path / "whole"))
    averaged = weights(tmp_path / "whole", "ema")
    assert all(torch.equal(averaged[name], value) for name, value in reference[0].module.state_dict().items())
    assert not torch.equal(averaged["head.weight"], weights(tmp_path / "whole")["head.weight"])
    monkeypatch.undo()

    def stop(images: int) -> None:
        if not (tmp_path / "parts" / "last.pt").exists():
            os.kill(os.getpid(), 15)

    with pytest.raises(RuntimeError, match="stopped"):
        run_training(student(c), data, data.samples, c, place(tmp_path / "parts", reporter=OnAdvance(stop)))
    run_training(student(c), data, data.samples, c, place(tmp_path / "parts"))
    assert all(torch.equal(value, averaged[name]) for name, value in weights(tmp_path / "parts", "ema").items())
    rows = list(csv.DictReader((tmp_path / "parts" / "metrics.csv").open()))
    assert {"top1_both", "ema_top1_class", "ema_top1_both"} <= rows[0].keys()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, store: Store, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    c, original = config(store), Training._losses

    def losses(self: Training, batch: object) -> Losses:
        bad = self.progress.epoch == 1 and self.progress.step == 1
        real = original(self, batch)
        return real._replace(total=real.total * float("nan")) if bad else real

    monkeypatch.setattr(Training, "_losses", losses)
    last = tmp_path / "last.pt"
    with pytest.raises(NonFiniteLossError, match=f"not finite in epoch 2, step 2; {last} is from before it") as error:
        run_training(student(c), stored(store, shards), None, c, place(tmp_path))
    assert error.value.exit_code == 1
    state = checkpoint.load(last)
    assert (state["progress"]["epoch"], state["progress"]["step"]) == (1, 0)
    assert all(bool(torch.isfinite(value).all()) for value in state["model"].values())


def test_a_stop_keeps_no_loss_that_was_not_yet_looked_at(
    tmp_path: Path, store: Store, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where losses are looked at later: the step that was bad was the last before a signal."""
    c, original, begin = config(store), Training._losses, Stopping.__init__

    def losses(self: Training, batch: object) -> Losses:
        real = original(self, batch)
        if (self.progress.epoch, self.progress.step) != (1, 1):
            return real
        self.signals.signum = signal.SIGTERM
        return real._replace(total=real.total * float("nan"))

    def behind(self: Stopping, *arguments: Any) -> None:
        begin(self, *arguments)
        self._behind = 2

    monkeypatch.setattr(Training, "_losses", losses)
    monkeypatch.setattr(Stopping, "__init__", behind)
    with pytest.raises(NonFiniteLossError, match="not finite in epoch 2, step 2"):
        run_training(student(c), stored(store, shards), None, c, place(tmp_path))
    assert checkpoint.load(tmp_path / "last.pt")["progress"]["epoch"] == 1


def test_the_folder_says_everything(tmp_path: Path, store: Store, shards: str) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "out"
    done = train(store.path, shards, out, "--epochs", 3, "--val-shards", shards)
    assert done.exit_code == 0, done.output
    names = {path.name for path in out.iterdir()}
    assert names == {
        "config.json", "config.yaml", "metrics.csv", "tensorboard", "curves.png", "summary.json", "last.pt",
        "best.safetensors", "student.safetensors",
    }  # fmt: skip
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    summary = json.loads((out / "summary.json").read_text())
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3] and summary["loss"] == float(rows[-1]["loss"])
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([float(row["loss"]) for row in rows])
    assert {"lr", "top1/class", "top1/distill", "top1/both"} <= set(events.Tags()["scalars"])
    picture = np.asarray(Image.open(out / "curves.png"))
    assert picture.shape[0] > 300 and len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 50
    top1 = [float(row["top1_both"]) for row in rows]
    best = run("evaluate", "--checkpoint", out / "best.safetensors", "--shards", shards, "--json")
    assert json.loads(best.output[best.output.index("{") :])["heads"]["both"]["top1"] == pytest.approx(max(top1))
    command = shlex.split(json.loads((out / "config.json").read_text())["command"])
    again = run(*[part if part != str(out) else tmp_path / "again" for part in command[1:]])
    assert again.exit_code == 0, again.output
    assert all(torch.equal(value, weights(tmp_path / "again")[name]) for name, value in weights(out).items())


@pytest.mark.parametrize("distill", ["hard", "soft"])
def test_a_student_without_a_token_learns_from_the_teacher_with_its_class_head(
    distill: str, tmp_path: Path, store: Store, shards: str
) -> None:
    plain = {"model": "deit_tiny_patch16_224", "drop_path": 0.0}
    c = config(store, distill=distill, **plain)
    run_training(student(c), stored(store, shards), None, c, place(tmp_path / "distilled"))
    c = config(store, distill="none", **plain)
    summary = run_training(student(c), stored(store, shards), None, c, place(tmp_path / "none"))
    one, other = (weights(tmp_path / name) for name in ("distilled", "none"))
    assert "head_dist.weight" not in one and not torch.equal(one["head.weight"], other["head.weight"])
    assert np.isfinite(summary["loss"])


def test_without_distillation_a_distillation_head_is_silent_and_not_reported(
    tmp_path: Path, store: Store, shards: str
) -> None:
    done = train(store.path, shards, tmp_path, "--epochs", 3, "--distill", "none", "--val-shards", shards)
    assert done.exit_code == 0, done.output
    assert not weights(tmp_path)["head_dist.weight"].any()
    assert "top1_both" not in json.loads((tmp_path / "summary.json").read_text())
    said = run("evaluate", "--checkpoint", tmp_path, "--shards", shards).output
    assert "class " in said and "distill " not in said.partition("head ")[2]


def test_what_batches_leave_over_is_said_and_not_promised(
    tmp_path: Path, store: Store, shards: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """23 samples a cycle of three epochs: 24, 24 and 21 views, of which batches of 16 take 16 each."""
    totals = []

    def noted(what: str, total: int, unit: str) -> Bar:
        totals.extend([total] if what == "train-student" else [])
        return bar(what, total, unit)

    monkeypatch.setattr("distillcache.commands.progress.bar", noted)
    few = train(store.path, shards, tmp_path / "few", "--epochs", 3, "--batch-size", 16)
    assert few.exit_code == 0 and totals == [48], few.output
    assert "30% of an epoch's images are left over by batches of 16 and dropped; smaller" in few.output
    most = train(store.path, shards, tmp_path / "most", "--epochs", 1, "--batch-size", 8)
    assert most.exit_code == 0 and totals == [48, 24] and "left over" not in most.output
    assert caplog.text == "" and "Cosine" not in most.output  # what timm says of one epoch


def test_a_half_filled_store_is_told_at_the_start_and_trained_from_as_far_as_it_goes(
    tmp_path: Path, store: Store, shards: str
) -> None:
    copy = Path(shutil.copytree(store.path, tmp_path / "c.zarr"))
    assert "so far" not in train(copy, shards, tmp_path / "whole", "--epochs", 3).output
    Store(copy).extend(18)
    half = train(copy, shards, tmp_path / "half", "--epochs", 12, "--batch-size", 8)
    assert f"{copy}: labels for 6 of 12 epochs so far; for the later ones run cache-teacher again" in half.output
    assert half.exit_code == 2 and "labels for view 6 of shard train-0.tar, found none" in half.output
    assert torch.load(tmp_path / "half" / "last.pt")["progress"]["epoch"] == 6


def test_a_refused_run_leaves_no_folder_and_takes_none_away(tmp_path: Path, store: Store, shards: str) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("new", "mine"):
        assert train(store.path, shards, tmp_path / name, "--batch-size", 1000).exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
