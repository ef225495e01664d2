"""Looking into a store: what it is, what the teacher said of a sample, and the views as the teacher saw them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.order import ALONE
from ..datasets.plans import plan_mix
from ..datasets.shards import Samples
from .store import Store

_CAPTION = 34  # pixels below each picture


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewLabel:
    """What the store holds of one view of one sample, and how the view was mixed."""

    view: int
    label: int | None
    label_name: str
    agrees: bool | None
    check: int
    partner: str | None
    partner_target: int | None
    mix: str
    lam: float
    topk: list[tuple[int, float]]
    """Class and probability of the k largest, where stored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleLabels:
    """One sample with all its cached views."""

    shard: str
    key: str
    target: int
    target_name: str
    seed: int
    views: list[ViewLabel]


def info(store: Store) -> dict[str, Any]:
    """Return what a store is, how full it is, and how many bytes it takes, in all and a view."""
    manifest, counts = store.manifest, store.counts
    asked = store.views * int(counts.sum())
    missing = sum(len(unit.views) * int(counts[unit.shard]) for unit in store.units())
    nbytes = store.chunks.nbytes()
    by_view = sum(nbytes.get(name, 0) for name in ("label", "check", "topk_index", "topk_logit"))
    cached = asked - missing
    return {
        "path": str(store.path),
        "format": manifest.to_dict()["format"],
        "created": manifest.created,
        "teacher": asdict(manifest.teacher),
        "teacher_top1": manifest.teacher_top1,
        "recipe": manifest.recipe.to_dict(),
        "recipe_fingerprint": manifest.recipe.fingerprint,
        "seed": manifest.seed,
        "topk": manifest.topk,
        "shards": len(manifest.shards),
        "samples": int(counts.sum()),
        "skipped": [asdict(sample) for sample in manifest.skipped],
        "views": store.views,
        "labels": cached,
        "labels_missing": missing,
        "complete": missing == 0,
        "bytes": sum(nbytes.values()),
        "bytes_by_array": nbytes,
        "bytes_per_view": round(by_view / cached, 3) if cached else None,
        "versions": manifest.versions,
        "drifted": manifest.drifted(),
    }


def info_text(store: Store) -> str:
    """Return `info` as a short table."""
    facts = info(store)
    recipe, teacher = facts["recipe"], facts["teacher"]
    per_view = f", {facts['bytes_per_view']} a view" if facts["labels"] else ""
    rows = [
        ("store", f"{facts['path']} (format {facts['format']}, {facts['created']})"),
        ("teacher", f"{teacher['name']}, {teacher['dtype']}, {teacher['input_size']} pixels, {teacher['sha256'][:16]}"),
        (
            "recipe",
            f"{recipe['name']} at {recipe['size']} pixels, {recipe['repeats']} repeats, {facts['recipe_fingerprint']}",
        ),
        ("shards", f"{facts['shards']} with {facts['samples']:,} samples"),
        ("views", f"{facts['views']} a sample"),
        (
            "labels",
            f"{facts['labels']:,}" + (f", {facts['labels_missing']:,} missing" if facts["labels_missing"] else ""),
        ),
        ("bytes", f"{facts['bytes']:,} in all{per_view}"),
    ]
    if facts["teacher_top1"] is not None:
        rows.insert(2, ("top-1", f"{facts['teacher_top1']:.2f}% on held-out shards"))
    if facts["skipped"]:
        first, more = facts["skipped"][0], len(facts["skipped"]) - 1
        named = f"{first['shard']}, key {first['key']}: {first['reason']}" + f"; and {more} more (--json)" * bool(more)
        rows.append(("skipped", named))
    if facts["drifted"]:
        rows.append(("drift", "; ".join(facts["drifted"])))
    return "\n".join(f"{name:<8} {value}" for name, value in rows)


def label_text(found: SampleLabels) -> str:
    """Return `label` as a table, a line a view."""
    lines = [f"{found.key} in {found.shard}: target {found.target} {found.target_name}", ""]
    lines.append(f"{'view':>4}  {'mix':<6} {'lambda':>6}  {'label':<32}  {'':<2} partner")
    for view in found.views:
        said = f"{view.label} {view.label_name}"[:32] if view.label is not None else "not cached"
        partner = f"{view.partner} ({view.partner_target})" if view.partner is not None else "-"
        agrees = {True: "=", False: "!", None: ""}[view.agrees]
        lines.append(f"{view.view:>4}  {view.mix:<6} {view.lam:>6.3f}  {said:<32}  {agrees:<2} {partner}")
        if view.topk:
            lines.append("      " + "  ".join(f"{number}: {p:.3f}" for number, p in view.topk))
    return "\n".join(lines)


def find(store: Store, key: str) -> tuple[int, int]:
    """Return (shard, sample) of a key, or of SHARD/KEY where several shards have it; ValueError if there is none."""
    found = [
        (shard, sample)
        for shard, record in enumerate(store.manifest.shards)
        for sample, name in enumerate(store.keys(shard))
        if key in (name, f"{record.name}/{name}")
    ]
    if not found:
        like = [name for shard in range(len(store.manifest.shards)) for name in store.keys(shard) if key in name]
        examples = ", ".join((like or store.keys(0))[:3])
        raise ValueError(f"key: {store.path} has no sample {key!r}, but such as {examples}")
    if len(found) > 1:
        shards = ", ".join(store.manifest.shards[shard].name for shard, _ in found)
        raise ValueError(f"key: {key!r} is in several shards ({shards}); say SHARD/{key}")
    return found[0]


def label(store: Store, key: str) -> SampleLabels:
    """Return what the teacher said of every cached view of one sample."""
    shard, sample = find(store, key)
    manifest, keys, target = store.manifest, store.keys(shard), store.targets()[shard]
    cached, seeds = store.read(range(store.views), shard), store.seeds(shard)
    partners = partners_of(store, shard, sample)
    views = []
    for view in range(store.views):
        said = int(cached.label[view, sample])
        partner = int(partners[view])
        mix = plan_mix(manifest.recipe, int(seeds[sample]), int(seeds[partner]), view) if partner != ALONE else None
        known = said != store.missing
        views.append(
            ViewLabel(
                view=view,
                label=said if known else None,
                label_name=class_name(store, said) if known else "not cached",
                agrees=said == int(target[sample]) if known else None,
                check=int(cached.check[view, sample]),
                partner=keys[partner] if partner != ALONE else None,
                partner_target=int(target[partner]) if partner != ALONE else None,
                mix=mix.kind if mix else "none",
                lam=mix.lam if mix else 1.0,
                topk=_topk(cached.topk_index, cached.topk_logit, view, sample) if known else [],
            )
        )
    return SampleLabels(
        shard=manifest.shards[shard].name,
        key=keys[sample],
        target=int(target[sample]),
        target_name=class_name(store, int(target[sample])),
        seed=int(seeds[sample]),
        views=views,
    )


def partners_of(store: Store, shard: int, sample: int) -> NDArray[np.int32]:
    """Return the partner of a sample in each cached view, ALONE where it has none."""
    order = store.order()
    partners = np.full(store.views, ALONE, np.int32)
    for cycle in range(store.views // order.repeats):
        pairs = order.pairs(shard, cycle)
        row, side = (int(i) for i in np.argwhere(pairs == sample)[0])
        partners[cycle * order.repeats : (cycle + 1) * order.repeats] = pairs[row, 1 - side]
    return partners


def show(store: Store, keys: Sequence[str], samples: Samples, views: int | None = None) -> Any:
    """Return a captioned grid (a PIL image) of what the teacher saw: a row a key, first the original, then its views.

    `views` is how many to show of each. Raises ValueError for an unknown key or an image that can't be read.
    """
    from PIL import Image, ImageDraw

    from ..datasets.order import Rows
    from ..datasets.views import Renderer

    renderer = Renderer(store.manifest.recipe, samples)
    n = min(views or store.views, store.views)
    size = store.manifest.recipe.size
    cell = max(size, 96)
    grid = Image.new("RGB", ((n + 1) * (cell + 4) + 4, len(keys) * (cell + _CAPTION + 4) + 4), "white")
    draw = ImageDraw.Draw(grid)
    for row, key in enumerate(keys):
        shard, sample = find(store, key)
        said = label(store, key)
        numbers = np.arange(n, dtype=np.int32)
        where = Rows(
            shard=np.full(n, shard, np.int32),
            sample=np.full(n, sample, np.int32),
            partner=partners_of(store, shard, sample)[:n],
            view=numbers,
        )
        original = Image.fromarray(renderer.decode(shard, sample))
        scale = cell / max(original.size)
        original = original.resize((max(1, int(original.width * scale)), max(1, int(original.height * scale))))
        views_seen = [Image.fromarray(view) for view in renderer(where).images.numpy()]
        pictures = [original, *(seen.resize((cell, cell), Image.Resampling.NEAREST) for seen in views_seen)]
        captions = [f"{said.key}\n{said.target} {said.target_name}", *(_caption(view) for view in said.views[:n])]
        for column, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
            x, y = 4 + column * (cell + 4), 4 + row * (cell + _CAPTION + 4)
            grid.paste(picture, (x, y))
            lines = [_fit(draw, line, cell) for line in caption.split("\n")]
            draw.multiline_text((x, y + cell + 4), "\n".join(lines), fill="black", spacing=2)
    return grid


def class_name(store: Store, number: int) -> str:
    """Return a class's name where the store has it."""
    names = store.manifest.class_names
    return names[number] if number < len(names) else ""


def _topk(index: Any, logit: Any, view: int, sample: int) -> list[tuple[int, float]]:
    if index is None:
        return []
    probabilities = np.exp(logit[view, sample].astype(np.float64))
    return [(int(c), float(p)) for c, p in zip(index[view, sample], probabilities, strict=True)]


def _caption(view: ViewLabel) -> str:
    mixed = f"{view.mix} {view.lam:.2f}" if view.mix != "none" else "unmixed"
    said = f"{view.label} {view.label_name}" if view.label is not None else "not cached"
    return f"view {view.view}: {mixed}\n{said}"


def _fit(draw: Any, text: str, width: int) -> str:
    """Cut a line of a caption to `width` pixels."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    while text and draw.textlength(text) > width:
        text = text[:-1]
    return text
