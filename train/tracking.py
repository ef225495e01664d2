"""Where the figures of steps and epochs go: a file of the run's folder, and any tracker that is asked for."""

import contextlib
import csv
import importlib
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from ..runtime import atomic
from ..runtime.errors import InputError
from ..runtime.paths import AnyPath
from ..runtime.transfers import to_cpu

_KIND = re.compile("(top1|top5|val_loss)_")


class Tracker(Protocol):
    """Somebody who keeps figures: Weights & Biases, Trackio, TensorBoard, or anyone's own."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Keep figures of the run's step of that number, counted over all epochs."""

    def finish(self) -> None:
        """Hear that no more come."""


class _WandB:
    def __init__(self, project: str, name: str, run: str, config: dict[str, Any]) -> None:
        self._run = _begun("wandb", project=project, name=name, id=run, config=config, resume="allow")
        # Its own steps must not go back, as ours do where a killed run is done again: so ours are a figure, too.
        self._run.define_metric("*", step_metric="step")

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log({"step": step, **figures}, step=max(step, self._run.step))

    def finish(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, project: str, name: str, run: str, config: dict[str, Any]) -> None:
        with contextlib.redirect_stdout(sys.stderr):  # what it says is no result of ours
            self._run = _begun("trackio", project=project, name=f"{name}-{run}", config=config, resume="allow")

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def finish(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()


class TensorBoard:
    """TensorBoard's events, by its `writer`."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Write figures of a step, in a group for each prefix."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self) -> None:
        """Close the file."""
        self._writer.close()


_TRACKERS: dict[str, Callable[[str, str, str, dict[str, Any]], Tracker]] = {"wandb": _WandB, "trackio": _Trackio}


def trackers_named(
    projects: Mapping[str, str | None], *, name: str, run: str, config: dict[str, Any]
) -> tuple[Tracker, ...]:
    """Return a tracker for each of `wandb` and `trackio` for which a project is named.

    There `name` is what the run is called, `config` are its hyperparameters, and the same `run` goes on with what was
    tracked. Raises InputError where a module is not installed.
    """
    return tuple(_TRACKERS[module](project, name, run, config) for module, project in projects.items() if project)


def _begun(module: str, **told: Any) -> Any:
    """Return the run that a module's `init` begins."""
    try:
        tracker: Any = importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"`{module}`", f"the module {module}", "none", f"run: pip install {module}") from error
    try:
        return tracker.init(**told)
    except Exception as error:  # whatever the module, its settings and its server lead it to
        raise InputError(f"`{module}`", "a run that it begins", f"{type(error).__name__}: {error}") from error


class StepLog:
    """Figures of every n-th step, which no step waits for: they are read when the next are due, or the epoch ends.

    Losses, the gradient's norm and rates are those of this process's part of the batches.
    """

    def __init__(
        self, every: int, folder: AnyPath, trackers: Sequence[Tracker], model: nn.Module, done: int = 0
    ) -> None:
        """Log every `every` steps, 0 for none, to `trackers` and to the steps.csv of a `folder` on this machine.

        The gradient's norm is that of `model`. What the file has of steps behind the first `done` is done again, and
        goes.
        """
        self._every, self._trackers, self._model = every, trackers, model
        self._file = folder / "steps.csv" if isinstance(folder, Path) else None
        if every and self._file and self._file.exists():
            head, *rows = self._file.read_text().splitlines(keepends=True)
            atomic.write_text(self._file, head + "".join(row for row in rows if int(row.partition(",")[0]) <= done))
        self._arriving: tuple[dict[str, float], Callable[[], tuple[torch.Tensor, ...]]] | None = None
        self._norm: torch.Tensor | None = None
        self._waited = 0.0
        self._since, self._images = time.monotonic(), 0

    def due(self, number: int) -> bool:
        """Return whether the run's step of that number, from 0, is logged."""
        return bool(self._every) and (number + 1) % self._every == 0

    def note_gradients(self, number: int) -> None:
        """Measure the gradient, before it is clipped."""
        if self.due(number):
            self._norm = nn.utils.get_total_norm([p.grad for p in self._model.parameters() if p.grad is not None])

    def waited(self, seconds: float) -> None:
        """Count time that was spent waiting for a batch."""
        self._waited += seconds

    def after_step(self, number: int, epoch: int, losses: torch.Tensor, images: int, lr: float) -> None:
        """Take in a step's `losses` (3,), on their device: in all, of the class head, of the distillation."""
        self._images += images
        if not self.due(number):
            return
        self.flush()
        now = time.monotonic()
        seconds = max(now - self._since, 1e-9)
        figures = {
            "step": number + 1, "epoch": epoch + 1, "lr": lr, "images_per_second": self._images / seconds,
            "data_seconds": self._waited, "compute_seconds": max(seconds - self._waited, 0.0),
        }  # fmt: skip
        norm = losses.new_zeros(()) if self._norm is None else self._norm.detach().to(losses)
        self._arriving = figures, to_cpu(torch.cat([losses, norm[None]]))
        self._since, self._images, self._waited = now, 0, 0.0

    def flush(self) -> None:
        """Write what was measured by now."""
        if not self._arriving:
            return
        figures, values = self._arriving
        self._arriving = None
        loss, of_class, distill, norm = values()[0].tolist()
        row = figures | {"loss": loss, "loss_class": of_class, "loss_distill": distill, "grad_norm": norm}
        if self._file:
            new = not self._file.exists()
            with self._file.open("a", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow(row)
        self._send({f"step/{name}": value for name, value in row.items() if name != "step"}, int(row["step"]))

    def after_epoch(self, figures: Mapping[str, float], number: int) -> None:
        """Send an epoch's figures to trackers, as of the run's first `number` steps."""
        self._send({_KIND.sub(r"\1/", name): value for name, value in figures.items()}, number)

    def close(self) -> None:
        """Write what was measured by now, and let trackers finish."""
        try:
            self.flush()
        finally:
            for tracker in self._trackers:
                tracker.finish()

    def _send(self, figures: Mapping[str, float], number: int) -> None:
        for tracker in self._trackers:
            tracker.log(figures, number)
