"""A run and its folder: what it must have before it begins, and what it leaves when it ends."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..cache.store import Store
from ..cache.verify import drift
from ..datasets.augment.evidence import differing
from ..datasets.samples import Samples
from ..replay.batches import Replay, ReplayError
from ..replay.logits import require_logits
from ..replay.training_set import TrainingSet
from ..runtime.claim import Claim
from ..runtime.errors import InputError
from ..runtime.locks import HeldError, LockFile
from ..runtime.paths import AnyPath, require_folder
from ..runtime.ranks import this_rank
from . import checkpoint
from .config import Config, Place
from .loop import Run, train
from .metrics import best_epoch, write_summary
from .student import Student

_MUCH = 0.1
"""Share of an epoch's images that a user is told of when they are dropped."""


def run_training(
    student: Student, data: TrainingSet, held_out: Samples | None, config: Config, place: Place
) -> dict[str, Any] | None:
    """Train `student` on `data`, leave student.safetensors and summary.json, and return the summary (rank 0 only).

    See `loop.Run` for what a student is and `loop.train` for the other files and for what is raised.
    """
    processes = place.processes
    with contextlib.ExitStack() as held:
        with processes.together():
            if processes.first:
                take_over = place.take_over or bool(this_rank().restarts)  # by torchrun: the claim is this job's
                held.enter_context(_sole_owner(place.out, take_over=take_over))
            _require_fitting(data, held_out, config)
            if data.store:
                _require_teachers_views(data.store, data.samples, config, place)
            replay = Replay(
                data,
                batch_size=config.batch_size,
                rank=processes.rank,
                world=processes.world,
                workers=place.workers,
                soft=config.distill == "soft",
                reuse_views=config.reuse_views,
                allow_drift=config.allow_drift,
            )
            replay.require_views(config.epochs)
            if processes.first:
                _tell_of_dropped_images(data, config, place)
            if processes.first and data.store:
                _tell_of_missing_views(data.store, config, place)
        trained_on: dict[str, Any] = {"shards": list(data.shards), "recipe": data.order.recipe.to_dict()}
        if data.store:
            manifest = data.store.manifest
            trained_on |= {"store": str(data.store.path), "teacher": asdict(manifest.teacher)}
            trained_on |= {"class_names": list(manifest.class_names)}
        history = train(
            Run(student=student, replay=replay, config=config, place=place, held_out=held_out, trained_on=trained_on)
        )
        if not processes.first:
            return None
        checkpoint.save_weights(place.out / "student.safetensors", student.model, asdict(config))
        told = ("model", "distill", "init", "epochs", "batch_size", "seed")
        summary = {name: getattr(config, name) for name in told} | history[-1] | {"best_epoch": best_epoch(history)}
        write_summary(place.out, summary)
        return summary


def require_no_other(folder: AnyPath, others: Mapping[str, str]) -> None:
    """Raise ValueError if what another command made lies in `folder`: `others` says what a file of that name is of."""
    require_folder("out", folder)
    for name, what in others.items():
        if (folder / name).exists():
            raise InputError("`out`", "a folder of this run's own", f"{what} in {folder}", "name another `out`")


@contextlib.contextmanager
def _sole_owner(folder: AnyPath, *, take_over: bool) -> Iterator[None]:
    """Be the only run that writes to `folder`; ValueError names the one that does, or what lies there."""
    require_no_other(folder, {"zarr.json": "a store", "model.safetensors": "a teacher"})
    try:
        if not isinstance(folder, Path):
            with Claim(folder / "claim", take_over=take_over):
                yield
            return
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        lock = LockFile(folder / "lock")
    except HeldError as error:
        used, remedy = f"{folder} in use by {error.holder}", "wait for its end, or name another `out`"
        remedy += "" if isinstance(folder, Path) else "; if it was killed, add `take_over=True`"
        raise InputError("`out`", "a folder of this run's own", used, remedy) from error
    with lock:
        lock.sign()
        try:
            yield
        finally:
            lock.remove()
            if made:
                with contextlib.suppress(OSError):
                    folder.rmdir()  # where nothing came of the run


def _require_fitting(data: TrainingSet, held_out: Samples | None, config: Config) -> None:
    """Raise ValueError if the teacher's labels or the held-out samples are not those that the student needs."""
    _require_labels(data.store, config)
    if held_out and (largest := int(held_out.target.max())) >= data.classes:
        raise InputError("`val_shards`", f"classes below the student's {data.classes}", largest)


def _require_teachers_views(store: Store, samples: Samples, config: Config, place: Place) -> None:
    """Raise ReplayError if the probe views are others here than where the store was made, unless that is allowed."""
    if not (found := drift(store, samples)).differing:
        if place.processes.first and (apart := differing()):  # in what no probe shows
            ends = "" if config.allow_drift else "; the first view that is made so ends the run"
            place.reporter.log(f"{store.path}: golden vectors differ here: {', '.join(apart)}{ends}")
        return
    if not config.allow_drift:
        raise ReplayError(
            f"{store.path}: {found}; install the store's versions, cache again, or train with `allow_drift=True`"
        )
    if place.processes.first:
        place.reporter.log(f"{store.path}: {found}; trained on all the same, checks are not compared")


def _tell_of_dropped_images(data: TrainingSet, config: Config, place: Place) -> None:
    """Say so where much of an epoch is left over by its last whole batch."""
    dropped = 1 - data.images(config.epochs, config.batch_size) / data.images(config.epochs)
    if dropped > _MUCH:
        left_over = f"{dropped:.0%} of an epoch's images are left over by batches of {config.batch_size} and dropped"
        place.reporter.log(f"{left_over}; smaller batches drop fewer")


def _tell_of_missing_views(store: Store, config: Config, place: Place) -> None:
    """Say so where a run will end before its last epoch, unless stage 1 still runs and stays ahead of it."""
    wanted = min(config.epochs, store.views)
    if (cached := store.views_of_all()) < wanted:
        later = "run cache-teacher again, now or beside this run"
        place.reporter.log(f"{store.path}: labels for {cached} of {wanted} epochs so far; for the later ones {later}")


def _require_labels(store: Store | None, config: Config) -> None:
    if config.distill == "none":
        return
    if store is None:
        raise InputError(
            f"distill {config.distill}", "a store of teacher labels", "none", "name a `cache`, or `distill=none`"
        )
    if config.distill == "soft":
        require_logits(store, "distill soft")
