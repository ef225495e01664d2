"""Verification: is a store complete, and do its views and labels come out the same again?"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..datasets.augment.evidence import differing
from ..datasets.loader import Loader
from ..datasets.order import ALONE, Rows
from ..datasets.samples import Samples
from ..datasets.shards.files import image_digest
from ..datasets.views import Renderer, Views
from ..runtime.errors import InputError
from ..runtime.reporting import SILENT, Reporter
from .records import view_digests
from .store import Store
from .teacher import Teacher

NEAR_TIE = 0.05
"""Logits this close are a tie that another batch size or another GPU may decide otherwise."""
_NAMED = 5  # views that a report names, of those that differ


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """How far the probe views of this machine are from those that the teacher saw."""

    probes: int
    differing: int
    share: float | None
    """Of the bytes of all probe views, how many differ: 0 to 1; None in a published store, which keeps no pixels."""
    largest: int | None
    """Largest difference of a byte, in levels of 255."""
    causes: list[str]
    """Libraries that differ from the store's, and what else may be the reason."""

    def __str__(self) -> str:
        if not self.differing:
            return f"{self.probes} of {self.probes} probe views are the same bytes"
        changed = "; ".join(self.causes) or "no library differs: shards or store were changed"
        levels = f", in {self.share:.2%} of the bytes by at most {self.largest} of 255 levels" if self.largest else ""
        return f"{self.differing} of {self.probes} probe views differ{levels} ({changed})"


@dataclass(kw_only=True, slots=True)
class Verification:
    """What was found. Counts are of views; `differing` and `relabelled` name the first few."""

    images: int
    """How many of the store's images are there, of `of_images`."""
    of_images: int
    missing: dict[str, int]
    """Array by view: how many of its (shard, block) chunks are not there."""
    drift: Drift
    changed: list[str] = field(default_factory=list)
    """Shards whose SHA-256 is another than the store's, where that was looked at."""
    checked: int = 0
    labelled: int = 0
    near_ties: int = 0
    wrong_checks: int = 0
    wrong_labels: int = 0
    damaged: list[str] = field(default_factory=list)
    """Chunks that can't be read, and what to do about each."""
    differing: list[str] = field(default_factory=list)
    relabelled: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every view and label that was looked at is the same again. Missing ones are no failure."""
        return not (self.changed or self.damaged or self.wrong_checks or self.wrong_labels or self.drift.differing)

    def __str__(self) -> str:
        absent = ", ".join(f"{name} {n}" for name, n in self.missing.items() if n)
        filled = "; cache-teacher fills them" * bool(self.missing["label"])
        rows = [("arrays", f"chunks missing: {absent}{filled}" if absent else "complete")]
        rows += [("images", f"{self.images:,} of the store's {self.of_images:,} are there")]
        rows += [("changed", text) for text in self.changed]
        rows += [("damaged", text) for text in self.damaged]
        rows += [("probes", str(self.drift))]
        rows += [("checks", _counted(self.checked, self.wrong_checks, self.differing))]
        if self.labelled:
            ties = f", {self.near_ties} near ties aside" if self.near_ties else ""
            rows += [("labels", _counted(self.labelled, self.wrong_labels, self.relabelled) + ties)]
        return "\n".join(f"{name:<8} {value}" for name, value in rows)


def drift(store: Store, samples: Samples) -> Drift:
    """Render the probe views again and compare them byte by byte. Raises ValueError for an image that can't be read."""
    probes = store.probes()
    shard, sample, view = probes.at[samples.there[tuple(probes.at.T[:2])]].T
    rows = Rows(shard=shard, sample=sample, partner=np.full_like(shard, ALONE), view=view)
    with store.naming_samples():
        rendered = Renderer(store.manifest.recipe, samples)(rows).images.numpy()
    here = samples.there[tuple(probes.at.T[:2])]
    differing = int((view_digests(rendered) != probes.digests()[here]).sum())
    apart = None if probes.views is None else np.abs(rendered.astype(np.int16) - probes.views[here].astype(np.int16))
    return Drift(
        probes=len(rows),
        differing=differing,
        share=None if apart is None else float((apart > 0).mean()) if len(rows) else 0.0,
        largest=None if apart is None else int(apart.max(initial=0)),
        causes=store.manifest.drifted() + _of_this_machine(differing > 0),
    )


def _of_this_machine(drifted: bool) -> list[str]:
    """Return what this machine makes otherwise than others, where views drifted: it takes a moment to find out."""
    return [f"golden vectors differ here: {', '.join(differing())}"] if drifted and differing() else []


def require_same_views(store: Store, samples: Samples) -> None:
    """Raise ValueError if the probe views are others here than where the store was made: two kinds would be mixed."""
    if (found := drift(store, samples)).differing:
        causes = "; ".join(found.causes) or "no library does"
        other = f"{found.differing} of {found.probes} probe views that differ ({causes})"
        remedy = "install the store's versions, or cache on machines like the first"
        raise InputError(store.path, "views as it has them so far", other, remedy)


def rows_to_verify(store: Store, samples: Samples, views: range, fraction: float) -> list[Rows]:
    """Return the cached rows of `views`, unit by unit: of each cycle a `fraction` of its groups, chosen at random.

    Where that is less than a group, one or a few. Of images that are not there nothing is chosen. Raises ValueError if
    no row is.
    """
    chosen, order, rng = [], replace(store.order(), there=samples.there), np.random.default_rng(0)
    of_group = order.repeats * (order.recipe.group if order.recipe.mixes else 1)
    for block, views_of_block in enumerate(store.blocks):
        for shard in range(len(store.manifest.shards)):
            cached = range(views_of_block.start, store.missing_views(block, shard).start)
            asked = range(max(cached.start, views.start), min(cached.stop, views.stop))
            if not asked:
                continue
            cycle = order.repeats
            rows = order.unit(shard, range(asked.start // cycle * cycle, -(-asked.stop // cycle) * cycle))
            group = np.arange(len(rows)) % (cycle * int(store.counts[shard])) // of_group
            lucky = rng.random(int(group.max()) + 1) < fraction
            keep = lucky[group] & (rows.view >= asked.start) & (rows.view < asked.stop)
            chosen.append(order.shown(rows[np.flatnonzero(keep)]))
    if not any(map(len, chosen)):
        if 0 < fraction < 1:  # of a small store the share may be less than one group
            return rows_to_verify(store, samples, views, min(1.0, 10 * fraction))
        raise InputError("verify", "some of the cached views", "none", "take more `views` or a larger `fraction`")
    return [rows for rows in chosen if len(rows)]


def verify(
    store: Store,
    samples: Samples,
    chosen: list[Rows],
    *,
    teacher: Teacher | None = None,
    digests: bool = True,
    workers: int = 0,
    batch_size: int = 64,
    reporter: Reporter = SILENT,
) -> Verification:
    """Render the views `chosen` again and compare their checks; with a teacher, also what it says of them.

    With `digests` the shards' SHA-256 are compared too, for which each is read whole.

    Raises ValueError for another teacher than the store's, or an image that can't be read.
    """
    if teacher and teacher.sha256 != store.manifest.teacher.sha256:
        ours, theirs = (f"{one.name} ({one.sha256[:16]})" for one in (store.manifest.teacher, teacher))
        raise InputError("`teacher`", f"the store's, {ours}", theirs, "name the store's")
    total = int(store.counts.sum())
    there = min(total, int(samples.there.sum()))
    found = Verification(images=there, of_images=total, missing=_missing(store), drift=drift(store, samples))
    if digests and samples.as_stored:
        found.changed = list(_changed(store, samples))
    for shard in range(len(store.manifest.shards)):
        store.keys(shard)  # raises where they are damaged

    def batches() -> Iterator[Rows]:
        for rows in chosen:
            yield from rows.batches(batch_size)

    renderer = Renderer(store.manifest.recipe, samples)
    with store.naming_samples(), Loader(renderer, workers=workers) as loader:
        for rows, views in loader.load(batches()):
            _compare(store, rows, views, teacher, found)
            reporter.advance(len(rows))
    return found


def _changed(store: Store, samples: Samples) -> Iterator[str]:
    """Yield what of the shards is not as it was: the images, or of a store that does not know those, the shards."""
    known = store.digests()
    for shard, expected in enumerate(store.manifest.shards):
        if not (changed := samples.difference(shard, expected)):
            continue
        if known is None:
            yield str(changed)
            continue
        for sample in range(int(store.counts[shard])):
            if image_digest(samples.read(shard, sample)) != int(known[shard, sample]):
                yield f"{store.where(shard, sample)}: another image"


def _compare(store: Store, rows: Rows, views: Views, teacher: Teacher | None, found: Verification) -> None:
    """Add to `found` what a batch of one shard says."""
    first, last = int(rows.view.min()), int(rows.view.max())
    try:
        stored = store.read(range(first, last + 1), int(rows.shard[0]))
    except ValueError as error:
        if str(error) not in found.damaged:
            found.damaged.append(str(error))
        return
    place = (rows.view - first, rows.sample)
    wrong = stored.check[place] != views.check.numpy()
    found.checked += len(rows)
    found.wrong_checks += int(wrong.sum())
    _name(store, rows, wrong, found.differing)
    if not teacher:
        return
    logits, label = teacher.logits(views.images).cpu().numpy(), stored.label[place].astype(np.int64)
    short = logits.max(axis=1) - logits[np.arange(len(rows)), label]
    relabelled = short > NEAR_TIE
    found.labelled += len(rows)
    found.near_ties += int((short > 0).sum() - relabelled.sum())
    found.wrong_labels += int(relabelled.sum())
    _name(store, rows, relabelled, found.relabelled)


def _missing(store: Store) -> dict[str, int]:
    units = {(block, shard) for block in range(len(store.blocks)) for shard in range(len(store.counts))}
    return {name: len(units - store.chunks.units(name)) for name in store.by_view}


def _name(store: Store, rows: Rows, wrong: Any, names: list[str]) -> None:
    for i in np.flatnonzero(wrong)[: _NAMED - len(names)]:
        names.append(f"{store.where(int(rows.shard[i]), int(rows.sample[i]))}, view {rows.view[i]}")


def _counted(total: int, wrong: int, names: list[str]) -> str:
    if not total:
        return "none looked at"
    if not wrong:
        return f"{total:,} views, all as stored"
    more = f" and {wrong - len(names):,} more" if wrong > len(names) else ""
    return f"{total:,} views, {wrong:,} not as stored: {'; '.join(names)}{more}"
