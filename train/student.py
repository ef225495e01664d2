"""Stage 2: train a student from shards and store, without any teacher."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..cache.inspect import info
from ..cache.store import Store
from ..datasets import atomic
from ..datasets.shards import Samples
from . import checkpoint
from .config import Config, Place
from .loop import Run, train
from .replay import Replay


def table(summary: dict[str, Any], store: Store, shards: Sequence[str], out: Path) -> str:
    """Return the short table that a finished run ends with."""
    manifest, facts = store.manifest, info(store)
    top1 = {head: summary.get(f"top1_{head}") for head in ("class", "distill", "both")}
    rows = [
        ("teacher top-1", _percent(manifest.teacher_top1)),
        *((f"student top-1, {head} head{'s' * (head == 'both')}", _percent(v)) for head, v in top1.items()),
        ("store", f"{facts['bytes']:,} bytes, {facts['bytes_per_view']} bytes a view ({facts['labels']:,} views)"),
        ("shards", " ".join(shards)),
        ("cache", str(store.path)),
        ("student", f"{out / 'student.safetensors'}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _percent(value: float | None) -> str:
    return "not measured (--val-shards)" if value is None else f"{value:.2f}%"


def train_student(
    student: nn.Module, store: Store, samples: Samples, held_out: Samples | None, config: Config, place: Place
) -> dict[str, Any] | None:
    """Train `student` from `store`, leave student.safetensors and summary.json, and return the summary (rank 0 only).

    See `loop.Run` for what a student is and `loop.train` for the other files and for what is raised.
    """
    if config.distill == "hard" and student.heads != ("class", "distill"):
        raise ValueError(f"model {config.model}: expected a distillation token (*_distilled_*), or --distill none")
    classes = store.manifest.teacher.classes
    if held_out and (found := int(held_out.target.max())) >= classes:
        raise ValueError(f"val-shards: expected classes below the store's {classes}, found {found}")
    replay = Replay(
        store.order(config.window),
        samples,
        store,
        batch_size=config.batch_size,
        workers=place.workers,
        reuse_views=config.reuse_views,
        rank=place.processes.rank,
        world=place.processes.world,
    )
    history = train(
        Run(
            student=student,
            classes=classes,
            replay=replay,
            config=config,
            place=place,
            held_out=held_out,
            size=store.manifest.recipe.size,
        )
    )
    if not place.processes.first:
        return None
    checkpoint.save_weights(place.out / "student.safetensors", student.model)  # type: ignore[arg-type]
    summary = {"format": 1, "model": config.model, **history[-1]}
    atomic.write_text(place.out / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary
