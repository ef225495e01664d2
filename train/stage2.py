"""Stage 2: a student from shards and store, without the teacher; or from shards alone."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch
import torch.distributed

from ..cache.matching import Missing
from ..cache.opening import open_store
from ..cache.store import Store
from ..datasets.augment.recipes import named
from ..datasets.loader import start_early
from ..datasets.shards.mirror import DEFAULT, Mirror
from ..models.students import Student, build_student, parse_kwargs
from ..replay.training_set import TrainingSet
from ..runtime.devices import device_and_workers
from ..runtime.errors import InputError, require_whole
from ..runtime.paths import PathLike, path_of
from ..runtime.processes import Processes, join, leave
from ..runtime.reporting import SILENT, Reporter
from . import run
from .checkpoint import read_weights
from .config import Config, Hyperparameters, Place
from .evaluate import labelled
from .metrics import window_of
from .tracking import Tracker

_ALL = 1 << 31
"""A window in which all shards are shuffled as one."""


def train_student(
    out: PathLike,
    shards: str | Sequence[str],
    *,
    store: Store | PathLike | None = None,
    val_shards: str | Sequence[str] = (),
    subset: str | float | None = None,
    missing: Missing = "stop",
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    image_size: int | None = None,
    model_kwargs: Mapping[str, Any] | Sequence[str] = (),
    device: str = "auto",
    workers: int | None = None,
    take_over: bool = False,
    log_every: int = 50,
    wandb: str | None = None,
    trackio: str | None = None,
    trackers: Sequence[Tracker] = (),
    mirror: Mirror = DEFAULT,
    reporter: Reporter = SILENT,
    command: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    **asked: Unpack[Hyperparameters],
) -> dict[str, Any] | None:
    """Train a student on the views of a store, without the teacher, and return the figures of its last epoch.

    Called again it goes on, also in mid-epoch. Under torchrun or srun all ranks call it, and the first returns the
    figures. It leaves student.safetensors, summary.json, config.json, metrics.csv and last.pt in `out`.

    Args:
        out: A folder for the student, or its URL.
        shards: Any copy of the store's images: tars, Parquet files or folders: paths, URLs, with braces and globs.
        store: What `open_store` returns, or takes; without one it trains on fresh views and the ground truth alone.
        val_shards: Held-out shards, to be measured on after each epoch.
        subset: A part of the store: a share (`0.1`), images of each class (`50/class`), or a pattern of shards.
        missing: `stop` where images are missing, or `drop` them with the views that they are mixed into.
        recipe: Without a store: the name of an augmentation; `deit`.
        overrides: Without a store: changes of its fields, such as `hflip=0`.
        image_size: Without a store: height and width of views, pixels; 224.
        model_kwargs: Arguments of the model, by name or as `KEY=VALUE`.
        device: `cpu`, `cuda`, `cuda:1`; `auto`: a GPU if there is any.
        workers: Processes that render; by default one a core, and without a GPU 0: threads of this process.
        take_over: Go on where a job was killed that wrote to this URL, once it shows no sign of life.
        log_every: Steps between two rows of steps.csv; 0: there are none.
        wandb: A project of Weights & Biases that is to have the figures, too.
        trackio: One of Trackio.
        trackers: Others who are to have them.
        mirror: Where shards from far away are held.
        reporter: Told how far the work is, a line an epoch, and what may surprise.
        command: The command line that config.json is to have; by default this program's.
        options: What config.yaml is to have, by the names that the command's `config` reads; these arguments.
        asked: `model`, `epochs`, `batch_size`, `lr` and the command's other options, by their names.

    Raises:
        InputError: A ValueError, one line of text: for what is wrong with shards, store, model or an option.
        ReplayError: At the first view that is not what the teacher saw.
        RunInterruptedError: After SIGINT or SIGTERM, with everything saved.
        NonFiniteLossError: Where the loss is infinite or no number.
        PeerError: Where another rank failed.
    """
    given = _as_options(
        asked, shards=shards, cache=store, out=out, val_shards=val_shards, subset=subset, missing=missing,
        recipe=recipe, set=overrides, image_size=image_size, model_kwargs=model_kwargs, device=device,
        workers=workers, log_every=log_every, wandb=wandb, trackio=trackio,
    )  # fmt: skip
    require_whole("log_every", log_every, 0)
    joined, processes, folder = torch.distributed.is_initialized(), join(device), path_of(out)
    told = reporter if processes.first else SILENT
    with processes.together():
        kwargs = parse_kwargs(model_kwargs)
        place, workers = device_and_workers(device, workers)
        start_early(workers)
        window = window_of(folder) if asked.get("window") is None else asked["window"]
        if store is None:
            data = fresh(shards, recipe or "deit", overrides, image_size, asked.get("seed", 0), window, mirror, told)
        elif recipe or overrides or image_size:
            remedy = "leave out `recipe`, `set` and `image_size`, or `cache`"
            raise InputError("recipe", "the store's own", "another", remedy)
        else:
            part = None if subset is None else str(subset)
            data = _stored(store, shards, window, mirror, missing, part, told)
    data = _shuffled_alike(data, window, processes, told)
    with processes.together():
        config = Config.resolve(data, place.type, kwargs, **asked)
        student = started(config, resumed=(folder / "last.pt").exists(), reporter=told).to(place)
        held_out = labelled(val_shards, mirror, told) if val_shards and processes.first else None
    held_out = processes.share(held_out)
    with told.part("train-student", data.images(config.epochs, config.batch_size), "images") as counted:
        where = Place(
            device=place, workers=workers, out=folder, processes=processes, take_over=take_over, log_every=log_every,
            projects={"wandb": wandb, "trackio": trackio}, trackers=trackers, reporter=counted,
            command=command or sys.argv, options=options or given,
        )  # fmt: skip
        summary = run.run_training(student, data, held_out, config, where)
    if not joined:
        leave()
    return summary


def _as_options(asked: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the arguments of a program's call as the command's options."""
    options = {}
    for name, value in {**more, **asked}.items():
        if isinstance(value, Mapping):
            value = [f"{key}={str(one).replace(' ', '')}" for key, one in value.items()]
        elif isinstance(value, Store):
            value = value.path
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = [str(one) for one in value]
        if value not in (None, "", []):
            options[name.replace("_", "-")] = value if isinstance(value, (bool, int, float, list)) else str(value)
    return options


def _stored(
    store: Store | PathLike,
    shards: str | Sequence[str],
    window: int | None,
    mirror: Mirror,
    missing: Missing,
    part: str | None,
    reporter: Reporter,
) -> TrainingSet:
    opened = store if isinstance(store, Store) else open_store(store, mirror)
    with reporter.part("finding images", int(opened.counts.sum()), "images") as told:
        return TrainingSet.stored(opened, shards, window, mirror, missing=missing, part=part, reporter=told)


def fresh(
    shards: str | Sequence[str],
    recipe: str,
    overrides: Sequence[str],
    size: int | None,
    seed: int,
    window: int | None,
    mirror: Mirror,
    reporter: Reporter,
) -> TrainingSet:
    """Return fresh views of `shards`, without a teacher's labels."""
    chosen = named(recipe, size=size, overrides=overrides)
    with reporter.part("reading shards", None, "shards") as told:
        return TrainingSet.fresh(shards, chosen, seed, window, mirror, reporter=told)


def _shuffled_alike(data: TrainingSet, asked: int | None, processes: Processes, reporter: Reporter) -> TrainingSet:
    """Return `data` in windows of as many shards as each machine's mirror can hold, where none are `asked` for."""
    [narrowest] = processes.ask_largest(-(data.order.window or _ALL))()
    if asked is not None:
        return data
    data = data.shuffled_in(-narrowest % _ALL)
    if data.order.window:
        reporter.log(f"the mirror can't hold all shards: shuffled in windows of {data.order.window}")
    return data


def started(config: Config, *, resumed: bool = False, reporter: Reporter, resizable: bool = True) -> Student:
    """Return the student that a run starts with, saying what of its start may surprise."""
    if config.warmup_epochs >= config.epochs:
        warning = f"the warm-up takes {config.warmup_epochs} epochs, the run has {config.epochs}: it learns little"
        reporter.log(f"{warning}; lower `warmup_epochs`")
    student = build_student(
        config.model, classes=config.classes, seed=config.seed, drop_path=config.drop_path, **config.model_kwargs
    )
    student.require_size(config.size, resizable=resizable)
    if config.init and not resumed:
        weights, _ = read_weights(path_of(config.init))
        if afresh := student.initialize(weights, config.init):
            reporter.log(f"{config.init}: {' and '.join(afresh)} start afresh, for {config.classes} classes")
    if config.distill == "none" and student.distilled:
        student.silence_distillation_head()
    return student
