"""The training loop: steps, schedule, evaluation, checkpoints. Students and teachers are trained by the same one."""

import contextlib
import itertools
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from types import FrameType, TracebackType
from typing import Any, NoReturn, cast

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import nn

from ..datasets.augment.philox import Stream, words
from ..datasets.samples import Samples
from ..replay.batches import Batch, Replay
from . import checkpoint
from .checkpoint import Progress
from .config import Config, Place
from .evaluate import CentreCrops, predict_student
from .loss import distillation_loss, from_topk, mixed_target
from .metrics import RunFolder

_STEPS_BETWEEN_LOOKS = 20  # on a GPU, and with several processes, a look at what happened waits for all steps before


class RunInterruptedError(RuntimeError):
    """The user or the scheduler asked the run to stop; everything is saved. `exit_code` is a shell's."""

    def __init__(self, signum: int, progress: Progress) -> None:
        super().__init__(
            f"stopped in epoch {progress.epoch + 1}, step {progress.step}; run the same command again to go on"
        )
        self.exit_code = 128 + signum


class NonFiniteLossError(RuntimeError):
    """A loss was NaN or infinite; last.pt is from before it."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One training run."""

    student: nn.Module
    """Takes uint8 views and returns a tuple of logits, one for each of its `heads`; its `model` is what is saved."""
    replay: Replay
    config: Config
    place: Place
    held_out: Samples | None
    trained_on: dict[str, Any]
    """What is trained on, for the run's config.json."""


def train(run: Run) -> list[dict[str, float]]:
    """Train to the last epoch, from its checkpoint if there is one; return a row of figures an epoch.

    Leaves in its folder last.pt, best.safetensors (of the highest top-1 on held-out shards), ema.safetensors, and what
    `RunFolder` writes. Raises RunInterruptedError after SIGINT or SIGTERM, with everything saved; NonFiniteLossError;
    ValueError if the checkpoint there is of another run; ReplayError for a view that drifted.
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


def optimizer_and_schedule(model: nn.Module, config: Config) -> tuple[torch.optim.Optimizer, Callable[[int], None]]:
    """Return timm's optimizer, and a function that gives it the learning rate of an epoch, as DeiT's main.py does.

    DeiT steps timm's scheduler after each epoch with that epoch's own number, so an epoch has the rate that the
    schedule gives the one before it: the first two have the warm-up's first. Raises ValueError for an unknown `opt`.
    """
    on_gpu = next(model.parameters()).device.type == "cuda"
    fused = {"fused": True} if on_gpu and config.opt == "adamw" else {}
    try:
        optimizer = create_optimizer_v2(
            model, opt=config.opt, lr=config.scaled_lr, weight_decay=config.weight_decay, **fused
        )
    except (AssertionError, ValueError, KeyError) as error:
        raise ValueError(
            f"opt: expected an optimizer that timm knows, found {config.opt!r}; try adamw or sgd"
        ) from error
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=config.epochs,
        lr_min=config.min_lr,
        warmup_t=config.warmup_epochs,
        warmup_lr_init=config.warmup_lr,
    )
    return optimizer, lambda epoch: scheduler.step(max(epoch - 1, 0))


class _Training:
    """A run with its state: weights, optimizer, schedule and progress."""

    def __init__(self, run: Run) -> None:
        self.config, self.place, self.run = run.config, run.place, run
        self.last = run.place.out / "last.pt"
        self.model = cast(nn.Module, run.student.model)
        first, config = run.place.processes.first, run.config
        self.optimizer, self.set_rate = optimizer_and_schedule(self.model, config)
        self.ema = ModelEmaV3(run.student, decay=config.ema_decay) if first and config.ema_decay else None
        self.progress = self._resume() if self.last.exists() else Progress()
        self.folder = RunFolder(config, run.place, run.trained_on, self.progress.epoch) if first else None
        student = run.place.processes.wrap(run.student, run.place.device)
        self.student = cast(nn.Module, torch.compile(student)) if config.compile else student
        self.rate = 0.0
        self.bad_step = torch.tensor(0, device=run.place.device)

    def train_epoch(self, epoch: int, batches: Iterator[Batch], stop: "_StopSignals") -> None:
        """Do what is left of an epoch's steps; save, and raise RunInterruptedError, where `stop` says so."""
        self.set_rate(epoch)
        progress, size = self.progress, self.config.batch_size
        steps, before, started = self.run.replay.steps(epoch), progress.step, time.monotonic()
        cheap = self.place.processes.world == 1 and self.place.device.type == "cpu"
        loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64, device=self.place.device)
        for batch in itertools.islice(batches, steps - progress.step):
            try:
                loss = self._step(batch, epoch, progress.step)
            except RuntimeError as error:
                if not self.config.compile:
                    raise
                if stop.signum:  # Ctrl-C also reaches the compiler that torch.compile has started
                    self._stop(stop.signum, loss_sum)
                reason = str(error).partition("\n")[0]
                raise ValueError(f"compile: torch.compile failed ({reason}); leave out --compile") from error
            loss_sum += loss
            progress.step += 1
            progress.images += size
            self.bad_step = torch.where((self.bad_step == 0) & ~torch.isfinite(loss), progress.step, self.bad_step)
            self.place.report(size)
            if (cheap or progress.step % _STEPS_BETWEEN_LOOKS == 0) and progress.step < steps:
                self._look(stop, loss_sum)
        self._look(stop, loss_sum)
        progress.loss_sum = self.place.processes.mean(loss_sum)
        self.rate = (steps - before) * size / max(time.monotonic() - started, 1e-9)

    def finish_epoch(self, epoch: int) -> None:
        """Evaluate, note the epoch's figures, and save."""
        progress, place = self.progress, self.place
        if self.folder:
            if self.run.held_out:
                self._save()  # the evaluation may be long
            loss = progress.loss_sum / progress.step
            row = {"epoch": epoch + 1, "lr": self.optimizer.param_groups[0]["lr"], "loss": loss}
            progress.history.append({**row, **self._evaluate(), "images_per_second": self.rate})
        progress.epoch, progress.step, progress.loss_sum = epoch + 1, 0, 0.0
        if self.folder:
            if best_epoch(progress.history) == progress.epoch:
                checkpoint.save_weights(place.out / "best.safetensors", self.model, asdict(self.config))
            if self.ema and progress.epoch == self.config.epochs:
                averaged = cast(nn.Module, self.ema.module.model)
                checkpoint.save_weights(place.out / "ema.safetensors", averaged, asdict(self.config))
            self._save()
            self.folder.record(progress.history, last=progress.epoch == self.config.epochs)
            place.log(_line(progress.history[-1], self.config.epochs))
        place.processes.wait()

    def _step(self, batch: Batch, epoch: int, step: int) -> torch.Tensor:
        """Do one optimizer step and return its loss, detached, on the device."""
        config, rank = self.config, self.place.processes.rank
        # Seeded by its place, a step draws the same stochastic depth whether the run was stopped before it or not.
        torch.manual_seed(int(words(config.seed, Stream.STEP, (epoch, step, rank), 1)[0]) >> 1)
        self.student.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.place.device)
        for number in range(config.grad_accum_steps):
            part = batch.part(number, config.grad_accum_steps).to(self.place.device)
            if not len(part.images):
                continue
            last = number == config.grad_accum_steps - 1
            with contextlib.nullcontext() if last else self.place.processes.no_sync(self.student):
                loss = self._loss(part) * (len(part.images) / len(batch.images))
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if config.clip_grad:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_grad)
        self.optimizer.step()
        if self.ema:
            self.ema.update(self.run.student)
        return total

    def _loss(self, batch: Batch) -> torch.Tensor:
        config = self.config
        with torch.autocast(self.place.device.type, torch.bfloat16, enabled=config.amp):
            logits = self.student(batch.images)
        target = mixed_target(batch.target, batch.partner, batch.lam, config.classes, config.smoothing)
        return distillation_loss(
            logits, target, self._teacher(batch), distill=config.distill, alpha=config.alpha, tau=config.tau
        )

    def _teacher(self, batch: Batch) -> torch.Tensor | None:
        """Return what the loss asks of the teacher: labels, or for `soft` log-probabilities (n, classes)."""
        if self.config.distill != "soft":
            return batch.label
        assert batch.topk_index is not None and batch.topk_logit is not None
        return from_topk(batch.topk_index, batch.topk_logit, self.config.classes)

    def _evaluate(self) -> dict[str, float]:
        if not self.run.held_out:
            return {}
        crops = CentreCrops(
            samples=self.run.held_out,
            size=self.config.size,
            crop_pct=self.config.crop_pct,
            device=self.place.device,
            workers=self.place.workers,
        )
        students = {"top1": self.run.student} | ({"ema_top1": cast(nn.Module, self.ema.module)} if self.ema else {})
        said = {name: predict_student(student, crops, amp=self.config.amp) for name, student in students.items()}
        return {f"{name}_{head}": top1 for name, found in said.items() for head, top1 in found.accuracy().items()}

    def _save(self) -> None:
        states = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.ema:
            states["ema"] = self.ema.module.state_dict()
        checkpoint.save(self.last, asdict(self.config), self.progress, **states)

    def _look(self, stop: "_StopSignals", loss_sum: torch.Tensor) -> None:
        """Raise NonFiniteLossError or RunInterruptedError where a step or a signal asks for it, on all processes."""
        processes, progress = self.place.processes, self.progress
        if bad := processes.any(int(self.bad_step), self.place.device):
            kept = f"{self.last} is from before it" if self.last.exists() else "nothing was saved before it"
            raise NonFiniteLossError(
                f"the loss is not finite in epoch {progress.epoch + 1}, step {bad}; {kept}; "
                "try a lower --lr, --clip-grad 1 or --no-amp with another --out"
            )
        if signum := processes.any(stop.signum, self.place.device):
            self._stop(signum, loss_sum)

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
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        progress = Progress(**state["progress"])
        self.place.start_at(progress.images)
        if self.place.processes.first and progress.epoch < self.config.epochs:
            self.place.log(f"going on from epoch {progress.epoch + 1}, step {progress.step}")
        return progress


def best_epoch(history: list[dict[str, float]]) -> int | None:
    """Return the first epoch, from 1, of the highest top-1 (of both heads, or of the only one), if it was measured."""
    name = next((name for name in ("top1_both", "top1_class") if name in history[-1]), None)
    return int(max(history, key=lambda row: row[name])["epoch"]) if name else None


def _line(row: dict[str, float], epochs: int) -> str:
    top1 = "".join(f"  {k.replace('top1', 'top-1').replace('_', ' ')} {v:.2f}%" for k, v in row.items() if "top1_" in k)
    return (
        f"epoch {row['epoch']:.0f}/{epochs}  loss {row['loss']:.4f}  lr {row['lr']:.2e}{top1}"
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
