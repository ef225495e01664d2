"""The training loop: steps, schedule, evaluation, checkpoints. Students and teachers are trained by the same one."""

import csv
import io
import itertools
import json
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

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


class RunInterruptedError(RuntimeError):
    """The user or the scheduler asked the run to stop; everything is saved. `exit_code` is a shell's."""

    def __init__(self, signum: int, progress: Progress) -> None:
        super().__init__(
            f"stopped in epoch {progress.epoch}, step {progress.step}; run the same command again to go on"
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
    config, place = run.config, run.place
    last = place.out / "last.pt"
    run.replay.require_views(config.epochs)
    place.out.mkdir(parents=True, exist_ok=True)
    model: nn.Module = run.student.model  # type: ignore[assignment]
    optimizer = create_optimizer_v2(model, opt="adamw", lr=config.scaled_lr, weight_decay=config.weight_decay)
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=config.epochs,
        lr_min=config.min_lr,
        warmup_t=config.warmup_epochs,
        warmup_lr_init=config.warmup_lr,
    )
    progress = _resume(run, model, optimizer) if last.exists() else Progress()
    place.start_at(_images_before(run.replay, progress, config.batch_size))
    atomic.write_text(place.out / "config.json", json.dumps(asdict(config), indent=2) + "\n")
    batches = run.replay.batches(progress.epoch, progress.step, config.epochs)

    def save() -> None:
        checkpoint.save(last, model, optimizer, progress, asdict(config))

    with _StopSignals() as stop:
        for epoch in range(progress.epoch, config.epochs):
            scheduler.step(epoch)
            steps = run.replay.steps(epoch)
            started, before = time.monotonic(), progress.step
            loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64, device=place.device)
            for batch in itertools.islice(batches, steps - progress.step):
                loss_sum += _step(run, optimizer, batch, epoch, progress.step)
                progress.step += 1
                place.report(config.batch_size)
                if stop.signum and progress.step < steps:
                    progress.loss_sum = loss_sum.item()
                    save()
                    raise RunInterruptedError(stop.signum, progress)
            progress.loss_sum = loss_sum.item()
            save()  # before the evaluation, which may be long
            if stop.signum:
                raise RunInterruptedError(stop.signum, progress)
            rate = (steps - before) * config.batch_size / max(time.monotonic() - started, 1e-9)
            accuracy = _evaluate(run)
            row = {"epoch": epoch, "lr": optimizer.param_groups[0]["lr"], "loss": progress.loss_sum / steps}
            progress.history.append({**row, **{f"top1_{k}": v for k, v in accuracy.items()}, "images_per_second": rate})
            progress.epoch, progress.step, progress.loss_sum = epoch + 1, 0, 0.0
            save()
            _write_metrics(place.out / "metrics.csv", progress.history)
            place.log(_line(progress.history[-1], config.epochs))
    return progress.history


def _step(run: Run, optimizer: torch.optim.Optimizer, batch: Batch, epoch: int, step: int) -> torch.Tensor:
    """Do one optimiser step and return its loss, detached, on the device."""
    config, device = run.config, run.place.device
    # Seeded by its place, a step draws the same stochastic depth whether the run was stopped before it or not.
    torch.manual_seed(int(words(config.seed, Stream.STEP, (epoch, step, 0), 1)[0]) >> 1)
    run.student.train()
    images, target, partner, lam = (part.to(device, non_blocking=True) for part in batch[:4])
    label = None if batch.label is None else batch.label.to(device, non_blocking=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.amp):
        logits = run.student(images)
    mixed = mixed_target(target, partner, lam, run.classes, config.smoothing)
    loss = distillation_loss(logits, mixed, label, config.distill)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def _evaluate(run: Run) -> dict[str, float]:
    if not run.held_out:
        return {}
    place, crop = run.place, [f"crop_pct={run.config.crop_pct}"]
    recipe = recipes.named("none", size=run.size, overrides=crop)
    return student_top1(
        run.student, run.held_out, recipe, device=place.device, workers=place.workers, amp=run.config.amp
    )


def _resume(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    path = run.place.out / "last.pt"
    state = checkpoint.load(path)
    run.config.require_same(state["config"], str(path))
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    progress = Progress(**state["progress"])
    if (progress.epoch, progress.step) != (0, 0) and progress.epoch < run.config.epochs:
        run.place.log(f"going on from epoch {progress.epoch}, step {progress.step}")
    return progress


def _images_before(replay: Replay, progress: Progress, batch_size: int) -> int:
    return (sum(replay.steps(epoch) for epoch in range(progress.epoch)) + progress.step) * batch_size


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
