"""Stage 1: render every view, show it to the teacher, and commit what it says unit by unit."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ..datasets.loader import Loader
from ..datasets.order import Rows
from ..datasets.samples import Samples
from ..datasets.views import Renderer
from ..runtime import atomic
from ..runtime.crew import Crew
from ..runtime.errors import InputError
from ..runtime.reporting import SILENT, Reporter
from ..runtime.signals import StopSignals
from ..runtime.transfers import to_cpu
from .claims import Claims
from .quantised import quantise
from .records import Labels, Unit
from .store import Store
from .teacher import Teacher
from .turns import Turn, number_of

_PAUSE = 1.0
"""Seconds between two looks at what other processes are still at work on; more where looking takes long."""
_Batch = tuple[Rows, Callable[[], Labels]]


class UnfinishedError(RuntimeError):
    """What is missing is left to the other processes that are at work on it."""

    exit_code = 3


def fill(
    store: Store,
    samples: Samples,
    teacher: Teacher,
    claims: Claims,
    *,
    views: int,
    batch_size: int,
    workers: int,
    wait: bool = True,
    crew: Crew | None = None,
    reporter: Reporter = SILENT,
) -> None:
    """Fill `store` up to `views` views of each sample, or to as many as other processes ask for at the same time.

    The ranks of `crew`, by default this process alone, share out the units; each has one writer. What other processes
    are at work on is waited for, and taken over if they are killed: this returns once the store is whole. `reporter`
    counts views: those that are there already, of all, again whenever others may have changed that, and those that the
    crew committed.

    Raises StopRequested after the batch in which a signal came; UnfinishedError, without `wait`, where what is missing
    is others'; ValueError for an image that can't be rendered, a shard that was changed, or logits that are not finite;
    PeerError where another rank failed.
    """
    crew = crew or Crew()
    if crew.first:
        with claims.structure(), atomic.naming(store.path):
            store.extend(views)
    loader = Loader(Renderer(store.manifest.recipe, samples), workers=workers, pin_memory=torch.cuda.is_available())
    filling = _Filling(store=store, samples=samples, teacher=teacher, claims=claims, crew=crew, loader=loader)
    with StopSignals(held=True, parent=crew.launcher) as signals, loader:
        for number in itertools.count():
            began = time.monotonic()
            with signals.raising():
                turn = Turn(number, store, samples, crew, reporter=reporter)
            if not turn:
                return
            if not crew.first:
                store.reopen()
            filling.take(turn, signals, batch_size)
            with signals.raising():
                if not turn.end() and crew.first:
                    if not wait:
                        told = f"{turn.missing:,} views are missing, which other processes are at work on"
                        raise UnfinishedError(f"{store.path}: {told}; run again to see them through")
                    time.sleep(max(_PAUSE, 9 * (time.monotonic() - began)))
            store.reopen()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Filling:
    """What a process fills a store with."""

    store: Store
    samples: Samples
    teacher: Teacher
    claims: Claims
    crew: Crew
    loader: Loader

    def take(self, turn: Turn, signals: StopSignals, batch_size: int) -> None:
        """Do the units of a turn that are drawn here and that no other process has claimed."""
        store, claims, manifest, order = self.store, self.claims, self.store.manifest, self.store.order()
        begun: deque[tuple[Unit, int]] = deque()

        def batches() -> Iterator[Rows]:
            for unit in self._claimed(turn):
                rows = order.unit(unit.shard, unit.views)
                begun.append((unit, len(rows)))
                yield from rows.batches(batch_size)

        parts: list[tuple[Rows, Labels]] = []
        with store.naming_samples():
            loaded = signals.waiting_for(self.loader.load(batches()))
            said = partial(fetch_labels, teacher=self.teacher.name, topk=manifest.topk, bits=manifest.logits)
            shown = ((rows, said(self.teacher.logits(views.images), views.check)) for rows, views in loaded)
            for rows, labels in _one_behind(shown):
                parts.append((rows, labels()))
                unit, expected = begun[0]
                if sum(len(part) for part, _ in parts) == expected:
                    claims.require_held()
                    with atomic.naming(store.path):
                        store.write(unit, _assemble(store, unit, parts))
                    claims.release(number_of(unit))
                    turn.committed(expected)
                    begun.popleft()
                    parts = []
                signals.require_none()
                self.crew.require_well()

    def _claimed(self, turn: Turn) -> Iterator[Unit]:
        """Yield units that are still to do and now ours, from shards that are still what they were."""
        verified: set[int] = set()
        for unit in turn.draw():
            if not self.claims.take(number_of(unit)):
                continue
            if not (missing := self.store.missing_views(unit.block, unit.shard)):  # another process was faster
                self.claims.release(number_of(unit))
                continue
            if unit.shard not in verified:
                self._verify(unit.shard)
                verified.add(unit.shard)
            yield replace(unit, views=missing)

    def _verify(self, shard: int) -> None:
        """Raise ValueError if a shard is not what it was; of the ranks of a machine one reads it."""
        mark = f"verified {self.crew.rank.machine} {shard}"
        if not self.crew.is_marked(mark):
            if changed := self.samples.difference(shard, self.store.manifest.shards[shard]):
                raise changed
            self.crew.mark(mark)


def _one_behind(batches: Iterable[_Batch]) -> Iterator[_Batch]:
    """Yield each batch once the next was begun: a GPU works on that while labels of the one are read and written."""
    begun: deque[_Batch] = deque()
    for batch in batches:
        begun.append(batch)
        if len(begun) > 1:
            yield begun.popleft()
    yield from begun


def fetch_labels(
    logits: torch.Tensor, check: torch.Tensor, teacher: str, *, topk: int = 0, bits: int = 0
) -> Callable[[], Labels]:
    """Begin to read what logits (n, classes) say, on their device; the function returned waits for it.

    It returns label and check (n,), and top-k log-softmax (n, k), largest first, or codes of `bits` bits. Raises
    ValueError where the logits are not finite.
    """
    more = logits.log_softmax(1).topk(topk, dim=1) if topk else (logits.float(),) if bits else ()
    arriving = to_cpu(torch.isfinite(logits).all(), logits.argmax(1), *more)

    def labels() -> Labels:
        finite, label, *more = (column.numpy() for column in arriving())
        if not finite:
            raise InputError(f"teacher {teacher}", "finite logits", "NaN or infinity", "try `amp=False`")
        labels = Labels(label=label.astype(np.uint32), check=check.numpy().astype(np.uint16))
        if topk:
            value, index = more
            return replace(labels, topk_index=index.astype(np.uint32), topk_logit=value.astype(np.float16))
        if bits:
            code, scale, zero = quantise(more[0], bits)
            return replace(labels, logit_code=code, logit_scale=scale, logit_zero=zero)
        return labels

    return labels


def _assemble(store: Store, unit: Unit, parts: list[tuple[Rows, Labels]]) -> Labels:
    """Put the batches of a unit into (view, sample) arrays."""
    shape = (len(unit.views), int(store.counts[unit.shard]))
    arrays: dict[str, Any] = {}
    for name in store.by_view:
        first = getattr(parts[0][1], name)
        arrays[name] = np.zeros((*shape, *first.shape[1:]), first.dtype)
        for rows, labels in parts:
            arrays[name][rows.view - unit.views.start, rows.sample] = getattr(labels, name)
    return Labels(**arrays)
