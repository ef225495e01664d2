"""Replay: the batches of a run, epoch after epoch, each view rendered again and checked against the store."""

import contextlib
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..cache.records import Labels
from ..datasets.augment.evidence import differing
from ..datasets.loader import Loader
from ..datasets.order import ALONE, Rows
from ..datasets.views import Renderer, Views
from ..runtime.errors import InputError
from ..runtime.transfers import to_device
from .logits import logits_of
from .training_set import TrainingSet


class ReplayError(RuntimeError):
    """A view that is not the one that the teacher saw: a failed check."""

    exit_code = 1


class Batch(NamedTuple):
    """One step's slice of the global batch; tensors are on the CPU.

    images uint8 (n, height, width, RGB), target and partner int64 (n,), lam float32 (n,). Of what the teacher said,
    label int64 (n,) and, where they are asked for, logits float32 (n, classes), each view's up to a constant.
    """

    images: torch.Tensor
    target: torch.Tensor
    partner: torch.Tensor
    lam: torch.Tensor
    label: torch.Tensor | None = None
    teacher_logits: torch.Tensor | None = None

    def part(self, number: int, parts: int) -> "Batch":
        """Return one of `parts` slices, of equal sizes up to one."""
        n = len(self.images)
        rows = slice(number * n // parts, (number + 1) * n // parts)
        return Batch(*(None if column is None else column[rows] for column in self))  # type: ignore[arg-type]

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on another device, see `to_device`."""
        return Batch(*to_device(device, *self))  # type: ignore[arg-type]


class Replay:
    """The views of a training set in training order, sliced into batches."""

    def __init__(
        self,
        data: TrainingSet,
        *,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        soft: bool = False,
        reuse_views: bool = False,
        allow_drift: bool = False,
    ) -> None:
        """Slice `data` into global batches of `batch_size`, of which this process, `rank` of `world`, takes its part.

        `soft` also gives the teacher's logits; `reuse_views` starts over when the cached views are used up;
        `allow_drift` does not compare checks. Raises ValueError if the batch can't be shared out evenly.
        """
        if batch_size % world:
            raise InputError("`batch_size`", f"a multiple of {world} processes", batch_size)
        self._order, self._samples, self._store = data.order, data.samples, data.store
        self._batch_size, self._workers, self._reuse = batch_size, workers, reuse_views
        self._soft, self._allow_drift, self._classes = soft, allow_drift, data.classes
        self._slice = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
        self._rows = lru_cache(maxsize=2)(self._order.epoch)
        self._labels = lru_cache(maxsize=1)(self._read_labels)

    @property
    def by_group(self) -> bool:
        """Whether epochs are chosen as `Order.by_group` says, in which runs go on that began so."""
        return self._order.by_group

    @by_group.setter
    def by_group(self, by_group: bool) -> None:
        self._order = replace(self._order, by_group=by_group)
        self._rows = lru_cache(maxsize=2)(self._order.epoch)

    def require_views(self, epochs: int) -> None:
        """Raise ValueError if the store has too few views for `epochs`, or an epoch has not even one batch."""
        shortest = min(self._order.sizes(max(epochs, self._order.repeats)))
        if not shortest:
            raise InputError(
                "`epochs`", "views in each epoch", "none in some", "take a larger `subset`, or more images"
            )
        if shortest < self._batch_size:
            raise InputError("`batch_size`", f"at most an epoch's {shortest} views", self._batch_size)
        if self._store and not self._reuse and epochs > self._store.views:
            needed = -(-epochs // self._order.repeats) * self._order.repeats
            remedy = f"run cache-teacher with `views={needed}`, or train with `reuse_views=True`"
            raise InputError(
                "`epochs`", f"{needed} views for {epochs} epochs", f"{self._store.views} in the store", remedy
            )

    def steps(self, epoch: int) -> int:
        """Return how many whole global batches an epoch has; what is left over is dropped, as DeiT's loader does."""
        return self._steps(self._stored(epoch))

    def rows(self, epoch: int, step: int) -> Rows:
        """Return which views of which samples this process has in a step."""
        return self._rows(self._stored(epoch))[step * self._batch_size : (step + 1) * self._batch_size][self._slice]

    def batches(self, epoch: int, step: int, epochs: int, every: int = 1) -> Generator[Batch, None, None]:
        """Yield every batch from `step` of `epoch` to the end of the last epoch; ReplayError at the first bad view.

        Of each epoch only every so-manieth, where several processes share them out.
        """
        cycles: deque[int] = deque()

        def rows() -> Iterator[Rows]:
            for e in range(epoch, epochs):
                stored = self._stored(e)
                for s in range(step if e == epoch else 0, self._steps(stored), every):
                    cycles.append(stored // self._order.repeats)
                    yield self.rows(e, s)

        renderer = Renderer(self._order.recipe, self._samples)
        with (
            self._store.naming_samples() if self._store else contextlib.nullcontext(),
            Loader(renderer, workers=self._workers, pin_memory=torch.cuda.is_available()) as loader,
        ):
            for batch, views in loader.load(rows()):
                yield self._batch(batch, views, cycles.popleft())

    def _stored(self, epoch: int) -> int:
        """Return which epoch of the store is replayed in `epoch` of the run."""
        if not self._store or not self._reuse:
            return epoch
        return epoch % self._store.views

    def _steps(self, stored: int) -> int:
        return self._order.size(stored) // self._batch_size

    def _read_labels(self, cycle: int) -> Labels:
        assert self._store
        self._labels.cache_clear()  # before the next cycle's are read: ImageNet's logits are gigabytes
        return self._store.cycle(cycle, soft=self._soft)

    def _batch(self, rows: Rows, views: Views, cycle: int) -> Batch:
        target = self._samples.target[rows.shard, rows.sample]
        alone = rows.partner == ALONE
        partner = np.where(alone, target, self._samples.target[rows.shard, rows.partner])
        batch = Batch(views.images, _int64(target), _int64(partner), views.lam)
        if not self._store:
            return batch
        labels, place = self._labels(cycle), (rows.view - cycle * self._order.repeats, rows.shard, rows.sample)
        if (wrong := labels.check[place] != views.check.numpy()).any() and not self._allow_drift:
            self._refuse(rows[np.flatnonzero(wrong)[:1]])
        return batch._replace(label=_int64(labels.label[place]), teacher_logits=logits_of(labels, place, self._classes))

    def _refuse(self, row: Rows) -> None:
        assert self._store
        where = self._store.where(int(row.shard[0]), int(row.sample[0]))
        drift = self._store.manifest.drifted()
        cause = f"these libraries differ from the store's: {', '.join(drift)}" if drift else "the shard was changed"
        if differing():
            cause = f"golden vectors differ here: {', '.join(differing())}" + f"; {cause}" * bool(drift)
        partner = int(row.partner[0])
        mixed = f" (mixed with key {self._store.keys(int(row.shard[0]))[partner]})" if partner != ALONE else ""
        raise ReplayError(f"{where}, view {row.view[0]}{mixed}: not the image that the teacher saw; {cause}")


def _int64(values: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64))
