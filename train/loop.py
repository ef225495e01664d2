"""The training loop: steps, schedule, evaluation, checkpoints. Students and teachers are trained by the same one."""

import csv
import io
import itertools
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn

from ..datasets import atomic, recipes
from ..datasets.philox import Stream, words
from ..datasets.shards import Samples
from . import checkpoint
from .checkpoint import Progress
from .config import Config, Place
from .evaluate import student_top1
from .loss import distillation_loss, mixed_target
from .replay import Batch, Replay

_STEPS_BETWEEN_STOPS = 20  # with several processes, asking whether any was told to stop waits for all of them


class RunInterruptedError(RuntimeError):
    """The user or the scheduler asked the run to stop; everything is saved. `exit_code` is a shell's."""

    def __init__(self, signum: int, progress: Progress) -> None:
        super().__init__(
            f"stopped in epoch {progress.epoch + 1}, step {progress.step}; run the same command again to go on"
        )
        self.exit_code = 128 + signum


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One training run."""

    student: nn.Module
    """Takes uint8 views and returns a tuple of logits, one for each of its `heads`; its `model` is what is saved."""
    classes: int
    replay: Replay
    config: Config
    place: Place
    held_out: Samples | None
    size: int
    """Height and width of the images that are evaluated."""


def train(run: Run) -> list[dict[str, float]]:
    """Train to the last epoch, from its checkpoint if there is one; return a row of figures an epoch.

    Leaves last.pt, metrics.csv and config.json in its folder. Raises RunInterruptedError after SIGINT or SIGTERM, with
    everything saved; ValueError if the checkpoint there is of another run; ReplayError for a view that drifted.
    """
    run.replay.require_views(run.config.epochs)
    training = _Training(run)
    start = training.progress
    batches = run.replay.batches(start.epoch, start.step, run.config.epochs)
    with _StopSignals() as stop:
        for epoch in range(start.epoch, run.config.epochs):
            training.train_epoch(epoch, batches, stop)
            training.finish_epoch(epoch)
    return training.progress.history


class _Training:
    """A run with its state: weights, optimizer, schedule and progress."""

    def __init__(self, run: Run) -> None:
        self.config, self.place, self.run = run.config, run.place, run
        self.last = run.place.out / "last.pt"
        self.model: nn.Module = run.student.model  # type: ignore[assignment]
        self.optimizer = create_optimizer_v2(
            self.model, opt="adamw", lr=self.config.scaled_lr, weight_decay=self.config.weight_decay
        )
        self.scheduler = CosineLRScheduler(
            self.optimizer,
            t_initial=self.config.epochs,
            lr_min=self.config.min_lr,
            warmup_t=self.config.warmup_epochs,
            warmup_lr_init=self.config.warmup_lr,
        )
        self.progress = self._resume() if self.last.exists() else Progress()
        self.student = self.place.processes.wrap(run.student, self.place.device)
        self.rate = 0.0
        if self.place.processes.first:
            self.place.out.mkdir(parents=True, exist_ok=True)
            atomic.write_text(self.place.out / "config.json", json.dumps(asdict(self.config), indent=2) + "\n")

    def train_epoch(self, epoch: int, batches: Iterator[Batch], stop: "_StopSignals") -> None:
        """Do what is left of an epoch's steps; save, and raise RunInterruptedError, where `stop` says so."""
        self.scheduler.step(epoch)
        progress, processes, size = self.progress, self.place.processes, self.config.batch_size
        steps, before, started = self.run.replay.steps(epoch), progress.step, time.monotonic()
        loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64, device=self.place.device)
        for batch in itertools.islice(batches, steps - progress.step):
            loss_sum += self._step(batch, epoch, progress.step)
            progress.step += 1
            progress.images += size
            self.place.report(size)
            ask_others = processes.world == 1 or progress.step % _STEPS_BETWEEN_STOPS == 0
            if ask_others and progress.step < steps and (signum := processes.any(stop.signum, self.place.device)):
                self._stop(signum, loss_sum)
        if signum := processes.any(stop.signum, self.place.device):
            self._stop(signum, loss_sum)
        progress.loss_sum = processes.mean(loss_sum)
        self.rate = (steps - before) * size / max(time.monotonic() - started, 1e-9)

    def finish_epoch(self, epoch: int) -> None:
        """Evaluate, note the epoch's figures, and save."""
        progress, place = self.progress, self.place
        if place.processes.first:
            if self.run.held_out:
                self._save()  # the evaluation may be long
            loss = progress.loss_sum / progress.step
            row = {"epoch": epoch, "lr": self.optimizer.param_groups[0]["lr"], "loss": loss}
            top1 = {f"top1_{head}": percent for head, percent in self._evaluate().items()}
            progress.history.append({**row, **top1, "images_per_second": self.rate})
        progress.epoch, progress.step, progress.loss_sum = epoch + 1, 0, 0.0
        if place.processes.first:
            self._save()
            _write_metrics(place.out / "metrics.csv", progress.history)
            place.log(_line(progress.history[-1], self.config.epochs))
        place.processes.wait()

    def _step(self, batch: Batch, epoch: int, step: int) -> torch.Tensor:
        """Do one optimizer step and return its loss, detached, on the device."""
        config, device = self.config, self.place.device
        # Seeded by its place, a step draws the same stochastic depth whether the run was stopped before it or not.
        place = (epoch, step, self.place.processes.rank)
        torch.manual_seed(int(words(config.seed, Stream.STEP, place, 1)[0]) >> 1)
        self.student.train()
        images, target, partner, lam = (part.to(device, non_blocking=True) for part in batch[:4])
        label = None if batch.label is None else batch.label.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.amp):
            logits = self.student(images)
        mixed = mixed_target(target, partner, lam, self.run.classes, config.smoothing)
        loss = distillation_loss(logits, mixed, label, config.distill)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def _evaluate(self) -> dict[str, float]:
        if not self.run.held_out:
            return {}
        place, crop = self.place, [f"crop_pct={self.config.crop_pct}"]
        recipe = recipes.named("none", size=self.run.size, overrides=crop)
        return student_top1(
            self.run.student, self.run.held_out, recipe, device=place.device, workers=place.workers, amp=self.config.amp
        )

    def _save(self) -> None:
        checkpoint.save(self.last, self.model, self.optimizer, self.progress, asdict(self.config))

    def _stop(self, signum: int, loss_sum: torch.Tensor) -> NoReturn:
        self.progress.loss_sum = self.place.processes.mean(loss_sum)
        if self.place.processes.first:
            self._save()
        self.place.processes.wait()
        raise RunInterruptedError(signum, self.progress)

    def _resume(self) -> Progress:
        state = checkpoint.load(self.last)
        self.config.require_same(state["config"], str(self.last))
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])
        self.place.start_at(progress.images)
        if self.place.processes.first and progress.epoch < self.config.epochs:
            self.place.log(f"going on from epoch {progress.epoch + 1}, step {progress.step}")
        return progress


def _write_metrics(path: Path, history: list[dict[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[-1]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    atomic.write_text(path, text.getvalue())


def _line(row: dict[str, float], epochs: int) -> str:
    top1 = "".join(f"  top-1 {k.removeprefix('top1_')} {v:.2f}%" for k, v in row.items() if k.startswith("top1_"))
    return (
        f"epoch {row['epoch'] + 1:.0f}/{epochs}  loss {row['loss']:.4f}  lr {row['lr']:.2e}{top1}"
        f"  {row['images_per_second']:.0f} images/s"
    )


class _StopSignals:
    """Turn SIGINT and SIGTERM into a note that the loop reads between two steps."""

    signum = 0

    def __enter__(self) -> "_StopSignals":
        self._before: dict[int, Any] = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
