"""The training loop: steps, schedule, evaluation, checkpoints. Students and teachers are trained by the same one."""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, cast

import torch
from timm.utils import ModelEmaV3
from torch import nn

from ..datasets.augment.libraries import library_versions
from ..datasets.augment.philox import Stream, words
from ..datasets.samples import Samples
from ..replay.batches import Batch, Replay
from ..replay.targets import mixed_target
from ..runtime.compiling import compiling
from ..runtime.errors import InputError
from ..runtime.ranks import PeerError
from ..runtime.signals import StopRequested, StopSignals
from . import checkpoint
from .checkpoint import Progress
from .config import Config, Place
from .evaluate import CentreCrops, measure
from .loss import Losses, distillation_loss
from .metrics import RunFolder, best_epoch, line_of
from .optimizer import optimizer_and_schedule, undecayed, undecayed_by_timm
from .stopping import Heard, NonFiniteLossError, RunInterruptedError, Stopping
from .student import Student
from .tracking import StepLog

_SECONDS_BEFORE_A_KILL = 25.0  # torchrun kills what has not ended 30 s after SIGTERM


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One training run."""

    student: Student
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
    processes = run.place.processes
    patience = _SECONDS_BEFORE_A_KILL if processes.world > 1 else None
    with StopSignals(held=True, patience=patience, parent=processes.parent) as signals:
        training = Training(run, signals)
        start = training.progress
        replayed = run.replay.batches(start.epoch, start.step, run.config.epochs)
        with contextlib.closing(training.log), contextlib.closing(replayed) as batches:
            for epoch in range(start.epoch, run.config.epochs):
                training.train_epoch(epoch, batches)
                training.finish_epoch(epoch)
    return training.progress.history


class Training:
    """A run with its state: weights, optimizer, schedule and progress."""

    def __init__(self, run: Run, signals: StopSignals) -> None:
        self.config, self.place, self.run = run.config, run.place, run
        self.signals, self.stopping = signals, Stopping(signals, run.place.processes, run.place.device)
        self.last = run.place.out / "last.pt"
        self.model, config = run.student.model, run.config
        self.ema = ModelEmaV3(run.student, decay=config.ema_decay) if config.ema_decay else None
        self.undecayed, self.progress = undecayed(self.model), Progress()
        with run.place.processes.together():
            saved = self._saved()
            if saved:
                names = saved["undecayed"]
                self.undecayed = undecayed_by_timm(self.model) if names is None else frozenset(names)
                self.run.replay.by_group = saved["by_group"]
            self.optimizer, self.set_rate = optimizer_and_schedule(self.model, config, self.undecayed)
            if saved:
                self._resume(saved)
        run.place.processes.require_agreement(
            {
                "where the run goes on from": f"epoch {self.progress.epoch + 1}, step {self.progress.step}",
                "options": asdict(config),
                "libraries": library_versions(),
            }
        )
        done = self.progress.images // config.batch_size
        with run.place.processes.together():
            self.folder = RunFolder(config, run.place, run.trained_on, done) if run.place.processes.first else None
        every, trackers = (run.place.log_every, self.folder.trackers) if self.folder else (0, ())
        self.log = StepLog(every, run.place.out, trackers, self.model, done)
        student = run.place.processes.wrap(cast(nn.Module, run.student), run.place.device)
        self.student = cast(nn.Module, torch.compile(student)) if config.compile else student
        self.rate = 0.0

    def train_epoch(self, epoch: int, batches: Iterator[Batch]) -> None:
        """Do what is left of an epoch's steps; on a signal save, and raise RunInterruptedError."""
        self.set_rate(epoch)
        progress, size = self.progress, self.config.batch_size
        steps, before, started = self.run.replay.steps(epoch), progress.step, time.monotonic()
        sums = (progress.loss_sum, progress.class_loss_sum, progress.distill_loss_sum)
        loss_sum = torch.tensor(sums, dtype=torch.float64, device=self.place.device)
        while progress.step < steps:
            batch = self._next(batches, loss_sum)
            try:
                with compiling(self.config.compile):
                    loss = self._step(batch, epoch, progress.step)
            except InputError:
                if self.signals.signum:  # Ctrl-C also reaches the compiler that torch.compile has started
                    self._stop(self.signals.signum, loss_sum)
                raise
            loss_sum += loss
            self.log.after_step(progress.images // size, epoch, loss, size, self.optimizer.param_groups[0]["lr"])
            progress.step += 1
            progress.images += size
            self.place.reporter.advance(size)
            self._heed(self.stopping.after_step(loss[0], progress.step), loss_sum)
        self._heed(self.stopping.after_all_steps(), loss_sum)
        self.log.flush()
        self._note_losses(loss_sum)
        self.rate = (steps - before) * size / max(time.monotonic() - started, 1e-9)

    def _next(self, batches: Iterator[Batch], loss_sum: torch.Tensor) -> Batch:
        """Return the next batch; alone, a signal ends the waiting for it, which may be for a read that hangs."""
        started = time.monotonic()
        try:
            with self.signals.raising() if self.place.processes.world == 1 else contextlib.nullcontext():
                return next(batches)
        except StopRequested as stop:
            self._stop(stop.signum, loss_sum)
        finally:
            self.log.waited(time.monotonic() - started)

    def finish_epoch(self, epoch: int) -> None:
        """Evaluate, each process a part, note the epoch's figures, and save; on a signal leave that to the next run."""
        progress, place = self.progress, self.place
        stopped, measured = 0, dict[str, float]()
        if self.run.held_out:
            if self.folder:
                self._save()  # the evaluation may be long
            for student in self._students().values():
                place.processes.share_buffers(student)
            try:
                with self.signals.raising():
                    measured = self._evaluate(self.run.held_out)
            except StopRequested as stop:
                stopped = stop.signum
        [signum] = place.processes.ask_largest(stopped)()
        if signum:
            raise self._interrupted(signum)
        held_out = self._of_all(measured)
        if self.folder:
            row = {"epoch": epoch + 1, "lr": self.optimizer.param_groups[0]["lr"], **self._mean_losses()}
            progress.history.append({**row, **held_out, "images_per_second": self.rate})
        progress.epoch, progress.step = epoch + 1, 0
        progress.loss_sum = progress.class_loss_sum = progress.distill_loss_sum = 0.0
        if self.folder:
            if best_epoch(progress.history) == progress.epoch:
                checkpoint.save_weights(place.out / "best.safetensors", self.model, asdict(self.config))
            if self.ema and progress.epoch == self.config.epochs:
                checkpoint.save_weights(place.out / "ema.safetensors", self.ema.module.model, asdict(self.config))
            self._save()
            self.log.after_epoch(progress.history[-1], progress.images // self.config.batch_size)
            self.folder.record(progress.history, last=progress.epoch == self.config.epochs)
            place.reporter.log(line_of(progress.history[-1], self.config.epochs))

    def _step(self, batch: Batch, epoch: int, step: int) -> torch.Tensor:
        """Do one optimizer step and return its losses (3,), detached, on the device: in all, and of each head."""
        config, rank = self.config, self.place.processes.rank
        # Seeded by its place, a step draws the same stochastic depth whether the run was stopped before it or not.
        torch.manual_seed(int(words(config.seed, Stream.STEP, (epoch, step, rank), 1)[0]) >> 1)
        self.student.train()
        self.optimizer.zero_grad(set_to_none=True)
        total, batch = torch.zeros(3, device=self.place.device), batch.to(self.place.device)
        for number in range(config.grad_accum_steps):
            part = batch.part(number, config.grad_accum_steps)
            if not len(part.images):
                continue
            last = number == config.grad_accum_steps - 1
            with contextlib.nullcontext() if last else self.place.processes.no_sync(self.student):
                losses, share = self._losses(part), len(part.images) / len(batch.images)
                (losses.total * share).backward()  # type: ignore[no-untyped-call]
            each = [losses.total, losses.target, losses.total * 0 if losses.teacher is None else losses.teacher]
            total += torch.stack(each).detach() * share
        self.log.note_gradients(self.progress.images // config.batch_size)
        if config.clip_grad:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_grad)
        self.optimizer.step()
        if self.ema:
            self.ema.update(self.run.student)
        return total

    def _losses(self, batch: Batch) -> Losses:
        config = self.config
        with torch.autocast(self.place.device.type, torch.bfloat16, enabled=config.amp):
            logits = self.student(batch.images)
        target = mixed_target(batch.target, batch.partner, batch.lam, config.classes, config.smoothing)
        teacher = batch.teacher_logits if config.distill == "soft" else batch.label
        assert teacher is not None or config.distill == "none"
        return distillation_loss(logits, target, teacher, distill=config.distill, alpha=config.alpha, tau=config.tau)

    def _students(self) -> dict[str, nn.Module]:
        """Return what is evaluated, by what its figures' names begin with."""
        return {"": cast(nn.Module, self.run.student)} | ({"ema_": self.ema.module} if self.ema else {})

    def _evaluate(self, held_out: Samples) -> dict[str, float]:
        """Return the sums of `measure` over this process's part of the held-out samples."""
        config, place, processes = self.config, self.place, self.place.processes
        crops = CentreCrops(
            size=config.size,
            crop_pct=config.crop_pct,
            device=place.device,
            workers=place.workers,
            part=processes.rank,
            parts=processes.world,
        )
        sums: dict[str, float] = {}
        for prefix, student in self._students().items():
            found = measure(cast(Student, student), crops, held_out, amp=config.amp)
            sums |= {f"{prefix}{name}": value for name, value in found.items()}
        return sums

    def _of_all(self, sums: dict[str, float]) -> dict[str, float]:
        """Return accuracies, percent, and mean losses over all processes' parts."""
        totals = self.place.processes.total(torch.tensor(list(sums.values()), dtype=torch.float64))
        images = int(self.run.held_out.count.sum()) if self.run.held_out else 1
        return {n: (1 if "loss" in n else 100) * t / images for n, t in zip(sums, totals, strict=True)}

    def _save(self) -> None:
        states = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.ema:
            states["ema"] = self.ema.module.state_dict()
        by_group = self.run.replay.by_group
        checkpoint.save(self.last, asdict(self.config), self.progress, self.undecayed, by_group=by_group, **states)

    def _heed(self, heard: Heard, loss_sum: torch.Tensor) -> None:
        self._require_finite(heard.bad_step)
        if heard.signum:
            self._stop(heard.signum, loss_sum)

    def _require_finite(self, bad_step: int) -> None:
        if bad_step:
            kept = f"{self.last} is from before it" if self.last.exists() else "nothing was saved before it"
            raise NonFiniteLossError(
                f"the loss is not finite in epoch {self.progress.epoch + 1}, step {bad_step}; {kept}; "
                "try a lower `lr`, `clip_grad=1` or `amp=False` with another `out`"
            )

    def _note_losses(self, loss_sum: torch.Tensor) -> None:
        progress = self.progress
        progress.loss_sum, progress.class_loss_sum, progress.distill_loss_sum = self.place.processes.mean(loss_sum)

    def _mean_losses(self) -> dict[str, float]:
        """Return an epoch's mean loss and, where a teacher is learned from, the two of which it is made."""
        progress = self.progress
        losses = {"loss": progress.loss_sum / progress.step}
        if self.config.distill != "none" and math.isfinite(progress.class_loss_sum):
            losses["loss_class"] = progress.class_loss_sum / progress.step
            losses["loss_distill"] = progress.distill_loss_sum / progress.step
        return losses

    def _stop(self, signum: int, loss_sum: torch.Tensor) -> NoReturn:
        self._require_finite(self.stopping.after_all_steps().bad_step)
        self._note_losses(loss_sum)
        if self.place.processes.first:
            self._save()
        raise self._interrupted(signum)

    def _interrupted(self, signum: int) -> RuntimeError:
        """Return how this process ends on a signal: of several, only the first says so."""
        interrupted = RunInterruptedError(signum, self.progress)
        return interrupted if self.place.processes.first else PeerError("", interrupted.exit_code)

    def _saved(self) -> dict[str, Any] | None:
        """Return the checkpoint to go on from, if there is one; ValueError if it is of another run."""
        if not self.last.exists():
            return None
        state = checkpoint.load(self.last)
        self.config.require_same(state["config"], str(self.last))
        return state

    def _resume(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        self.progress = progress = Progress(**state["progress"])
        self.place.reporter.start_at(progress.images)
        if self.place.processes.first and progress.epoch < self.config.epochs:
            self.place.reporter.log(f"going on from epoch {progress.epoch + 1}, step {progress.step}")
