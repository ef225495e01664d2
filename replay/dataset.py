"""Stored views as a dataset of PyTorch's, for a training loop of one's own."""

import contextlib
import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NoReturn, NotRequired, TypedDict, cast, get_args

import torch
import torch.distributed
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from ..cache.matching import Missing
from ..cache.opening import open_store
from ..cache.store import Store
from ..runtime.errors import InputError, require_whole
from ..runtime.inputs import normalize, require_normalisation
from ..runtime.paths import PathLike
from .batches import Batch, Replay
from .logits import require_logits
from .targets import mixed_target
from .training_set import TrainingSet

Layout = Literal["channels_first", "channels_last"]
_WORKERS = 256
"""Of a DataLoader, of which is noticed that they begin an epoch twice."""
_READ = 3 + _WORKERS


class ViewBatch(TypedDict):
    """A batch of n mixed views, on the CPU, as a dataset yields it."""

    image: torch.Tensor
    """uint8 (n, 3, height, width), RGB; as the dataset was asked, float32 and normalised, or channels last."""
    target: torch.Tensor
    """int64 (n,): the ground truth of each view's own image."""
    partner: torch.Tensor
    """int64 (n,): the ground truth of the image that is mixed in, or the same as `target` where none is."""
    lam: torch.Tensor
    """float32 (n,): the share of `target`, 0 to 1."""
    soft_target: torch.Tensor
    """float32 (n, classes): both, smoothed: what the class head learns."""
    key: list[str]
    """The WebDataset key of each view's own image."""
    teacher_label: NotRequired[torch.Tensor]
    """int64 (n,): the class that the teacher saw in the mixed view."""
    teacher_log_probs: NotRequired[torch.Tensor]
    """float32 (n, classes): the teacher's log-probabilities; with `soft`, of a store that keeps logits."""


class _Batch(dict[str, Any]):
    """A batch that no DataLoader makes batches of."""


def _refuse(batch: Sequence[Any], *, collate_fn_map: Any = None) -> NoReturn:
    raise InputError("DataLoader", "`batch_size=None`: a ViewDataset yields whole batches", "a `batch_size` of its own")


default_collate_fn_map[_Batch] = _refuse


class ViewDataset(IterableDataset[ViewBatch]):
    """The views of a store in training order, rendered from the images, each compared with its check.

    Iterating yields the batches of one epoch; `set_epoch` says which, before each. Alone it renders in `workers`
    processes of its own; a `DataLoader(dataset, batch_size=None, num_workers=...)` may render instead. Batches are the
    same either way, and for any number of processes: `train-student`'s.

    Its place within an epoch is its state (`state_dict`), as torchdata's StatefulDataLoader asks for it.
    """

    def __init__(
        self,
        store: Store | PathLike,
        shards: str | Sequence[str],
        *,
        batch_size: int,
        rank: int | None = None,
        world: int | None = None,
        workers: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        layout: Layout = "channels_first",
        smoothing: float = 0.1,
        soft: bool = False,
        reuse_views: bool = False,
        allow_drift: bool = False,
        window: int | None = None,
        subset: str | float | None = None,
        missing: Missing = "stop",
    ) -> None:
        """Find the images of `store` in `shards`, any copy of them.

        Args:
            store: What `open_store` returns, or takes.
            shards: WebDataset tars, Parquet files or folders: paths, URLs, with braces and globs.
            batch_size: Views a step over all ranks, of which each yields its part: a multiple of `world`.
            rank: Of this process, from 0; by default torch.distributed's, if that was begun, or else 0.
            world: How many ranks there are; by default as `rank`.
            workers: Processes that render, where no DataLoader has any; 0: threads of this one.
            mean: Of each channel, in units of 0 to 1. With `std`, images are float32 and normalised, not uint8.
            std: Of each channel, as `mean`.
            layout: Of images: (n, 3, height, width) or (n, height, width, 3). Memory is channels-last in both.
            smoothing: Label smoothing of `soft_target`.
            soft: Also yield the teacher's log-probabilities, which the store must keep.
            reuse_views: Begin again with the first views where the store has no more, instead of refusing an epoch.
            allow_drift: Yield views that are not the teacher's, byte for byte, too.
            window: Shards within which an epoch is shuffled; None: all, or as many as the mirror holds.
            subset: A part of the store: a share (`0.1`), images of each class (`50/class`), or a pattern of shards.
            missing: `stop` where images are missing, or `drop` them with the views that they are mixed into.

        Raises:
            InputError: A ValueError, one line of text: for images that are not the store's, a batch that can't be
                shared out, more epochs than the store has views.
            ReplayError: While iterating, at the first view that is not what the teacher saw.
        """
        store = store if isinstance(store, Store) else open_store(store)
        self._store, self._smoothing, self._layout = store, smoothing, layout
        if (mean is None) != (std is None):
            raise InputError("`mean` and `std`", "both or neither", "one")
        if mean is not None and std is not None:
            require_normalisation(mean, std)
        self._mean, self._std = (None if values is None else torch.tensor(values) for values in (mean, std))
        if layout not in get_args(Layout):
            raise InputError("`layout`", " or ".join(get_args(Layout)), repr(layout))
        if not 0 <= smoothing < 1:
            raise InputError("`smoothing`", "0 to below 1", smoothing)
        require_whole("batch_size", batch_size, 1)
        require_whole("workers", workers, 0)
        if soft:
            require_logits(store, "`soft`")
        part = None if subset is None else str(subset)
        self._data = TrainingSet.stored(store, shards, window, missing=missing, part=part)
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = rank if rank is not None else torch.distributed.get_rank() if distributed else 0
        self.world = world if world is not None else torch.distributed.get_world_size() if distributed else 1
        require_whole("world", self.world, 1)
        require_whole("rank", self.rank, 0, self.world - 1)
        self.batch_size = batch_size
        self._given: dict[str, Any] = {"soft": soft, "reuse_views": reuse_views, "allow_drift": allow_drift}
        self._workers = workers
        self._replays: dict[int, Replay] = {}
        self._replay.require_views(1)
        # In shared memory: processes of a DataLoader live through several epochs. Epoch, step, how often that was set,
        # for which of these times each worker is through, and for which a DataLoader's processes read.
        self._place = torch.zeros(4 + _WORKERS, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._place[2] = 1
        self._next: tuple[int, int] | None = None  # of this process: the batch after those that were yielded
        self._loaded: tuple[int, int, int] | None = None  # process, epoch, step

    @property
    def classes(self) -> int:
        """How many classes the teacher tells apart."""
        return self._data.classes

    @property
    def epoch(self) -> int:
        """The epoch that iterating yields, from 0."""
        return int(self._place[0])

    def __len__(self) -> int:
        """Return how many batches the epoch has."""
        return self._replay.steps(self.epoch)

    def steps(self, epochs: int) -> int:
        """Return how many batches the first `epochs` epochs have in all, for a schedule: they differ by a few."""
        return sum(self._replay.steps(epoch) for epoch in range(epochs))

    def set_epoch(self, epoch: int, step: int = 0) -> None:
        """Begin the next iteration with batch `step` of an epoch; after `load_state_dict` of that epoch, go on there.

        Raises InputError for an epoch that the store has no views for.
        """
        require_whole("epoch", epoch, 0)
        self._replay.require_views(epoch + 1)
        require_whole("step", step, 0, self._replay.steps(epoch))
        if self._loaded and self._loaded[1] == epoch and not step:
            step = self._loaded[2]
        self._begin_at(epoch, step)

    def state_dict(self) -> dict[str, Any]:
        """Return where the next batch is, as numbers and text.

        Raises InputError where a DataLoader's processes read, which do not tell: torchdata's StatefulDataLoader asks
        them.
        """
        number, workers = _this_worker()
        if not get_worker_info() and int(self._place[_READ]) == int(self._place[2]):
            remedy = "take StatefulDataLoader, or count steps and `set_epoch(epoch, step)`"
            raise InputError(
                "state_dict", "what a DataLoader's processes know", "only that it reads this epoch", remedy
            )
        epoch, step = self._next or (self.epoch, int(self._place[1]) + number)
        state = {"epoch": epoch, "step": step, "batch_size": self.batch_size, "data": self._data.fingerprint}
        return state | ({"worker": [number, workers]} if get_worker_info() else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at the next iteration where `state_dict` was asked for; InputError if that was of other data."""
        if not {"epoch", "step", "batch_size", "data"} <= set(state or ()):
            raise InputError("`state`", "what state_dict returned", repr(state)[:60])
        for name, have in (("batch_size", self.batch_size), ("data", self._data.fingerprint)):
            if state[name] != have:
                raise InputError(f"`{name}`", f"that of the saved state, {state[name]}", have)
        require_whole("epoch", state["epoch"], 0)
        self._replay.require_views(state["epoch"] + 1)
        require_whole("step", state["step"], 0)
        number, workers = _this_worker()
        if "worker" not in state:
            self._begin_at(state["epoch"], state["step"])
        elif not get_worker_info() or state["worker"] != [number, workers]:
            raise InputError("`num_workers`", f"{state['worker'][1]}, as when the state was saved", workers)
        self._loaded = os.getpid(), state["epoch"], state["step"]

    def __iter__(self) -> Iterator[ViewBatch]:
        """Yield the batches of the epoch, from where it was set to begin."""
        number, every = _this_worker()
        if get_worker_info() and self._data.samples.supply:
            remedy = "let the dataset render, with `workers`, and leave the DataLoader none"
            raise InputError("`num_workers`", "0 where images come from far away", every, remedy)
        epoch, start, times = (int(n) for n in self._place[:3])
        if get_worker_info():
            self._place[_READ] = times
        if number < _WORKERS and int(self._place[3 + number]) == times:
            raise InputError("`set_epoch`", "to be called before each epoch", f"epoch {epoch} for a second time")
        start += number
        if get_worker_info() and self._loaded and self._loaded[0] == os.getpid():
            _, loaded, step = self._loaded
            if times == 1 or loaded == epoch:
                epoch, start = loaded, step
        self._loaded, self._next = None, (epoch, start)
        with contextlib.closing(self._replay.batches(epoch, start, epoch + 1, every)) as batches:
            for step, batch in zip(itertools.count(start, every), batches, strict=False):
                self._next = epoch, step + every
                yield self._fields(batch, epoch, step)
        if number < _WORKERS:
            self._place[3 + number] = times

    def _begin_at(self, epoch: int, step: int) -> None:
        self._place[0], self._place[1] = epoch, step
        self._place[2] += 1
        self._next = self._loaded = None

    @property
    def _replay(self) -> Replay:
        """What this process reads with, which it did not inherit: there may be threads in it."""
        if (process := os.getpid()) not in self._replays:
            workers = 0 if get_worker_info() else self._workers
            of_all: dict[str, Any] = {"batch_size": self.batch_size, "rank": self.rank, "world": self.world}
            self._replays = {process: Replay(self._data, workers=workers, **of_all, **self._given)}
        return self._replays[process]

    @functools.cached_property
    def _keys(self) -> NDArray[Any]:
        return self._store.key_table()

    def _fields(self, batch: Batch, epoch: int, step: int) -> ViewBatch:
        rows = self._replay.rows(epoch, step)
        image = batch.images.permute(0, 3, 1, 2)
        if self._mean is not None and self._std is not None:
            image = normalize(batch.images, self._mean, self._std)
        target = mixed_target(batch.target, batch.partner, batch.lam, self.classes, self._smoothing)
        assert batch.label is not None
        fields = ViewBatch(
            image=image if self._layout == "channels_first" else image.permute(0, 2, 3, 1),
            target=batch.target,
            partner=batch.partner,
            lam=batch.lam,
            soft_target=target,
            key=[str(key) for key in self._keys[rows.shard, rows.sample]],
            teacher_label=batch.label,
        )
        if batch.teacher_logits is not None:
            fields["teacher_log_probs"] = batch.teacher_logits.log_softmax(1)
        if torch.cuda.is_available() and not get_worker_info():  # a DataLoader pins what its processes send
            for name, value in fields.items():
                if isinstance(value, torch.Tensor):
                    cast(dict[str, Any], fields)[name] = value.pin_memory()
        return cast(ViewBatch, _Batch(fields))

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what each process of a DataLoader makes for itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_keys"} | {"_replays": {}}


def _this_worker() -> tuple[int, int]:
    """Return which of how many processes of a DataLoader this is."""
    worker = get_worker_info()
    return (worker.id, worker.num_workers) if worker else (0, 1)
