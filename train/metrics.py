"""A run's folder: what was asked for, and the figures of every epoch for people and programs."""

import csv
import io
import json
import math
import secrets
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..runtime import atomic
from ..runtime.errors import InputError
from ..runtime.optional import optional
from ..runtime.paths import AnyPath, read_bytes
from .config import Config, Place
from .tracking import TensorBoard, Tracker, trackers_named

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1
_SECONDS_BETWEEN_PLOTS = 60
_LOSSES = {"loss": "both, weighted", "loss_class": "class", "loss_distill": "distill"}
_HEADS = {"class": "C0", "distill": "C1"}  # the colours of a head in all panels


def write_summary(folder: AnyPath, summary: dict[str, Any]) -> None:
    """Write a finished run's summary.json."""
    _write_json(folder / "summary.json", summary)


def window_of(folder: AnyPath) -> int | None:
    """Return in how many shards at a time the run in a folder shuffles, or None where there is none to go on with."""
    config = _noted(folder).get("config")
    window = config.get("window") if isinstance(config, dict) else None
    return window if isinstance(window, int) and (folder / "last.pt").exists() else None


class RunFolder:
    """Writes config.json, metrics.csv and curves.png, each whole or not at all; opens the run's `trackers`."""

    def __init__(self, config: Config, place: Place, trained_on: dict[str, Any], done: int) -> None:
        """Open the folder of `place` for a run that has done so many steps; note what it is told to do.

        Raises InputError where a tracker's module is not installed.
        """
        self.path, self._log, self._plotted = place.out, place.reporter.log, time.monotonic()
        run = str((_noted(self.path).get("run") if done else None) or secrets.token_hex(4))
        named = trackers_named(place.projects, name=self.path.name, run=run, config=asdict(config))
        if isinstance(self.path, Path):
            self.path.mkdir(parents=True, exist_ok=True)
        described = {
            "run": run,
            "command": shlex.join(place.command),
            "directory": str(Path.cwd()),
            "versions": {name: version(name) for name in ("distillcache", "torch", "timm")},
            "config": asdict(config),
            "trained_on": trained_on,
        }
        _write_json(self.path / "config.json", described)
        if place.options:
            atomic.write_text(self.path / "config.yaml", yaml.safe_dump(dict(place.options), sort_keys=False))
        self.trackers: tuple[Tracker, ...] = (*self._tensorboard(done), *place.trackers, *named)

    def record(self, history: Sequence[dict[str, float]], *, last: bool) -> None:
        """Write the figures of all epochs; draw the curves with the `last`, and before it once a minute."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(history[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        atomic.write_text(self.path / "metrics.csv", text.getvalue())
        if last or time.monotonic() - self._plotted > _SECONDS_BETWEEN_PLOTS:
            self._draw_curves(history)
            self._plotted = time.monotonic()

    def _tensorboard(self, done: int) -> tuple[Tracker, ...]:
        if not isinstance(self.path, Path):
            self._log("no TensorBoard events: they are only written to folders of this machine")
            return ()
        if not (tensorboard := self._optional("torch.utils.tensorboard", "TensorBoard events")):
            return ()
        purge = done + 1 if done else None  # steps behind those are done again
        return (TensorBoard(tensorboard.SummaryWriter(str(self.path / "tensorboard"), purge_step=purge)),)

    def _draw_curves(self, history: Sequence[dict[str, float]]) -> None:
        if matplotlib := self._optional("matplotlib.figure", "curves.png"):
            figure = curves(history, matplotlib.Figure(figsize=(12, 3.6), layout="constrained"))
            atomic.write(self.path / "curves.png", lambda file: figure.savefig(file, format="png", dpi=120))

    def _optional(self, module: str, what: str) -> Any:
        try:
            return optional(module, extra="plots", where=f"no {what}")
        except InputError as error:
            self._log(str(error))


def curves(history: Sequence[dict[str, float]], figure: "Figure") -> "Figure":
    """Draw losses and top-1 of all heads and the learning rate over the epochs of `history` into `figure`."""
    epochs, columns = [row["epoch"] for row in history], list(history[-1])
    panels = {
        "loss": [name for name in columns if name.startswith("loss")],
        "top-1 on held-out shards, %": [name for name in columns if "top1" in name],
        "learning rate": ["lr"],
    }
    marker = "." if len(epochs) < 3 else None
    for axes, (title, names) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for name in names:
            values = [row.get(name, math.nan) for row in history]
            label = _LOSSES.get(name) or name.replace("top1_", "")
            colour = _HEADS.get(name.rpartition("_")[2], "C2")
            axes.plot(epochs, values, "--" if name.startswith("ema") else "-", c=colour, label=label, marker=marker)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend()
    return figure


def _noted(folder: AnyPath) -> dict[str, Any]:
    """Return the config.json of the run in a folder; nothing where there is none that can be read."""
    try:
        noted = json.loads(read_bytes(folder / "config.json"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _write_json(path: AnyPath, value: dict[str, Any]) -> None:
    atomic.write_text(path, json.dumps({"format": FORMAT, **value}, indent=2) + "\n")


def best_epoch(history: list[dict[str, float]]) -> int | None:
    """Return the first epoch, from 1, of the highest top-1 (of both heads, or of the only one), if it was measured."""
    name = next((name for name in ("top1_both", "top1_class") if name in history[-1]), None)
    return int(max(history, key=lambda row: row[name])["epoch"]) if name else None


def line_of(row: dict[str, float], epochs: int) -> str:
    """Return an epoch's figures as the line that is logged."""
    top1 = "".join(f"  {k.replace('top1', 'top-1').replace('_', ' ')} {v:.2f}%" for k, v in row.items() if "top1_" in k)
    return (
        f"epoch {row['epoch']:.0f}/{epochs}  loss {row['loss']:.4f}  lr {row['lr']:.2e}{top1}"
        f"  {row['images_per_second']:.0f} images/s"
    )
