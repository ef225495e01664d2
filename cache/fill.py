"""Stage 1: render every view, show it to the teacher, and commit what it says unit by unit."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..datasets.loader import Loader
from ..datasets.order import Rows
from ..datasets.samples import Samples
from ..datasets.views import Renderer
from ..runtime import atomic
from ..runtime.errors import InputError
from ..runtime.reporting import SILENT, Reporter
from ..runtime.signals import StopSignals
from .claims import Claims
from .quantised import quantise
from .records import Labels, Unit
from .store import Store
from .teacher import Teacher

_PAUSE = 1.0
"""Seconds between two looks at what other processes are still at work on; more where looking takes long."""
_Batch = tuple[Rows, torch.Tensor, torch.Tensor]


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
    reporter: Reporter = SILENT,
) -> None:
    """Fill `store` up to `views` views of each sample, or to as many as other processes ask for at the same time.

    Each unit has one writer. What others are at work on is waited for, and taken over if they are killed: this returns
    once the store is whole. `reporter` counts views: those that are there already, of all, again whenever others may
    have changed that, and those that were committed.

    Raises StopRequested after the batch in which a signal came; UnfinishedError, without `wait`, where what is missing
    is others'; ValueError for an image that can't be rendered, a shard that was changed, or logits that are not finite.
    """
    with claims.structure(), atomic.naming(store.path):
        store.extend(views)
    renderer = Renderer(store.manifest.recipe, samples)
    pin_memory = torch.cuda.is_available()
    with StopSignals(held=True) as signals, Loader(renderer, workers=workers, pin_memory=pin_memory) as loader:
        while missing := remaining(store):
            began = time.monotonic()
            total = store.views * int(store.counts.sum())
            reporter.start_at(total - missing, total)
            committed = _fill_once(store, samples, teacher, claims, loader, signals, batch_size, reporter)
            if not committed and not wait:
                told = f"{missing:,} views are missing, which other processes are at work on"
                raise UnfinishedError(f"{store.path}: {told}; run again to see them through")
            if not committed:
                with signals.raising():
                    time.sleep(max(_PAUSE, 9 * (time.monotonic() - began)))
            store.reopen()


def _fill_once(
    store: Store,
    samples: Samples,
    teacher: Teacher,
    claims: Claims,
    loader: Loader,
    signals: StopSignals,
    batch_size: int,
    reporter: Reporter,
) -> int:
    """Go through all units once, do those that nobody else has claimed, and return how many those were."""
    order, manifest = store.order(), store.manifest
    begun: deque[tuple[Unit, int]] = deque()

    def batches() -> Iterator[Rows]:
        for unit in _claimed(store, samples, claims):
            rows = order.unit(unit.shard, unit.views)
            begun.append((unit, len(rows)))
            yield from rows.batches(batch_size)

    done = 0
    parts: list[tuple[Rows, Labels]] = []
    with store.naming_samples():
        loaded = signals.waiting_for(loader.load(batches()))
        shown = ((rows, views.check, teacher.logits(views.images)) for rows, views in loaded)
        for rows, check, logits in _one_behind(shown):
            parts.append((rows, labels_of(logits, check, teacher.name, topk=manifest.topk, bits=manifest.logits)))
            unit, expected = begun[0]
            if sum(len(part) for part, _ in parts) == expected:
                claims.require_held()
                with atomic.naming(store.path):
                    store.write(unit, _assemble(store, unit, parts))
                claims.release(_number(store, unit))
                reporter.advance(expected)
                begun.popleft()
                parts = []
                done += 1
            signals.require_none()
    return done


def _claimed(store: Store, samples: Samples, claims: Claims) -> Iterator[Unit]:
    """Yield units that are still to do and now ours, from shards that are still what they were."""
    verified: set[int] = set()
    units = store.units()
    if samples.supply and not samples.supply.fits(samples.supply.remote):
        units = sorted(units, key=lambda unit: unit.shard)  # so that each is fetched once
    for unit in units:
        if not claims.take(_number(store, unit)):
            continue
        if not (missing := store.missing_views(unit.block, unit.shard)):  # another process was faster
            claims.release(_number(store, unit))
            continue
        if unit.shard not in verified:
            if changed := samples.difference(unit.shard, store.manifest.shards[unit.shard]):
                raise changed
            verified.add(unit.shard)
        yield replace(unit, views=missing)


def _one_behind(batches: Iterable[_Batch]) -> Iterator[_Batch]:
    """Yield each batch once the next was begun: reading the one's results waits while a GPU is at work on the other."""
    begun: deque[_Batch] = deque()
    for batch in batches:
        begun.append(batch)
        if len(begun) > 1:
            yield begun.popleft()
    yield from begun


def labels_of(logits: torch.Tensor, check: torch.Tensor, teacher: str, *, topk: int = 0, bits: int = 0) -> Labels:
    """Return what logits (n, classes) say: label and check (n,), and top-k log-softmax (n, k), largest first, or codes.

    Raises ValueError where they are not finite.
    """
    if not bool(torch.isfinite(logits).all()):
        raise InputError(f"teacher {teacher}", "finite logits", "NaN or infinity", "try `amp=False`")
    labels = Labels(label=logits.argmax(1).cpu().numpy().astype(np.uint32), check=check.numpy().astype(np.uint16))
    if topk:
        values, indices = logits.log_softmax(1).topk(topk, dim=1)
        index, logit = indices.cpu().numpy().astype(np.uint32), values.cpu().numpy().astype(np.float16)
        return replace(labels, topk_index=index, topk_logit=logit)
    if bits:
        code, scale, zero = quantise(logits.float().cpu().numpy(), bits)
        return replace(labels, logit_code=code, logit_scale=scale, logit_zero=zero)
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


def _number(store: Store, unit: Unit) -> int:
    return unit.block * len(store.manifest.shards) + unit.shard


def remaining(store: Store) -> int:
    """Return how many views are still to be labelled."""
    counts = store.counts.tolist()
    return sum(len(unit.views) * counts[unit.shard] for unit in store.units())
