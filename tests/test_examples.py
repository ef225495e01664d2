"""The examples run, on real photos, and where their loop is train-student's their losses are."""

import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import distillcache as dc
from distillcache.cache.store import Store
from distillcache.models.export import to_transformers
from distillcache.train.loop import Training

from .conftest import SIZE, run

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MODEL = {"img_size": SIZE, "embed_dim": 24, "depth": 1}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def train_students(store: Store, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The losses of train-student's steps, at one learning rate, without stochastic depth."""
    losses, step = [], Training._step

    def noted(self: Training, *arguments: Any) -> torch.Tensor:
        found = step(self, *arguments)
        losses.append(float(found[0]))
        return found

    monkeypatch.setattr(Training, "_step", noted)
    kwargs = [f"{name}={value}" for name, value in MODEL.items()]
    options = ["--epochs", 3, "--batch-size", 8, "--lr", 1e-4 * 512 / 8, "--min-lr", 1e-4, "--warmup-epochs", 0]
    done = run(
        "train-student", "--shards", shards, "--cache", store.path, "--out", tmp_path / "run", "--device", "cpu",
        "--drop-path", 0, *options, "--model-kwargs", *kwargs,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    return losses


def losses_of(example: str, store: Store, shards: str, *arguments: Any, **more: Any) -> list[float]:
    return runpy.run_path(str(EXAMPLES / f"{example}.py"))["main"](str(store.path), shards, *arguments, **more)


@pytest.mark.parametrize("example", ["plain_pytorch", "timm_task"])
def test_train_students_loop_has_train_students_losses(
    example: str, store: Store, shards: str, train_students: list[float]
) -> None:
    losses = losses_of(example, store, shards, **MODEL)
    assert len(losses) == len(train_students) == 8
    assert losses == pytest.approx(train_students, rel=1e-5)


def test_lightning_has_them_too_and_goes_on_in_mid_epoch(
    store: Store, shards: str, train_students: list[float]
) -> None:
    pytest.importorskip("lightning", reason="SKIPPED: no lightning; pip install 'distillcache[examples]'")
    first = losses_of("lightning_module", store, shards, max_steps=4, **MODEL)  # of 3, 2 and 3 steps an epoch
    rest = losses_of("lightning_module", store, shards, "runs/last.ckpt", **MODEL)
    assert len(first) == 4 and first + rest == pytest.approx(train_students, rel=1e-5)


def test_hugging_faces_trainer_has_them_too_from_the_same_weights(
    store: Store, shards: str, tmp_path: Path, train_students: list[float]
) -> None:
    pytest.importorskip("transformers", reason="SKIPPED: no transformers; pip install 'distillcache[examples]'")
    pytest.importorskip("accelerate", reason="SKIPPED: no accelerate; pip install 'distillcache[examples]'")
    student = dc.build_student("deit_tiny_distilled_patch16_224", classes=5, seed=0, drop_path=0.0, **MODEL)
    to_transformers(student, tmp_path, crop_pct=1)
    losses = losses_of("hugging_face_trainer", store, shards, str(tmp_path))
    assert len(losses) == 8 and losses == pytest.approx(train_students, rel=1e-5)


def test_jax_alone_has_the_losses_of_the_same_student_in_torch(store: Store, shards: str) -> None:
    if not importlib.util.find_spec("jax"):
        pytest.skip("SKIPPED: no jax; pip install 'distillcache[examples]'")
    told = (  # in a process of its own: JAX has threads, and those that follow here fork
        f"import json, runpy; example = runpy.run_path({str(EXAMPLES / 'jax_only.py')!r})\n"
        f"losses = example['main']({str(store.path)!r}, {shards!r})\n"
        "start = {name: value.tolist() for name, value in example['start'](5).items()}\n"
        "print(json.dumps([losses, start, example['LR'], example['SIDE']]))"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    losses, start, lr, side = json.loads(done.stdout.splitlines()[-1])
    expected = []
    weights = {name: torch.tensor(value, requires_grad=True) for name, value in start.items()}
    optimizer = torch.optim.SGD([*weights.values()], lr=lr)
    dataset = dc.ViewDataset(store, shards, batch_size=8)
    for epoch in range(3):
        dataset.set_epoch(epoch)
        for batch in dataset:
            grid = torch.nn.functional.adaptive_avg_pool2d(batch["image"] / 127.5 - 1, side)
            hidden = torch.tanh(grid.permute(0, 2, 3, 1).flatten(1) @ weights["hidden"])
            logits = hidden @ weights["class"], hidden @ weights["distill"]
            loss = dc.distillation_loss(logits, batch["soft_target"], batch["teacher_label"], distill="hard").total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
    assert len(losses) == 8 and losses == pytest.approx(expected, rel=1e-4)


def test_examples_are_short_and_use_nothing_but_the_public_api() -> None:
    examples = {example.stem: example.read_text() for example in EXAMPLES.glob("*.py")}
    for text in examples.values():
        assert len(text.splitlines()) < 80
        assert "from distillcache" not in text and "dc._" not in text and "import distillcache as dc" in text
    assert "torch" not in examples["jax_only"]
    importable = [name for name in examples if name != "jax_only" or importlib.util.find_spec("jax")]
    alone = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import {', '.join(importable)}"
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
