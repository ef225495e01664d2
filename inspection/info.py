"""What a store is: its teacher and recipe, how full it is, how large, and the command that would fill it."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..cache.store import Store


def info(store: Store) -> dict[str, Any]:
    """Return what a store is, how full it is by shard and block of views, and how many bytes it takes."""
    manifest, counts = store.manifest, store.counts
    done = completeness(store)
    cached, asked = int((done.sum(axis=0) * counts).sum()), store.views * int(counts.sum())
    nbytes, raw = store.chunks.nbytes(), store.raw_nbytes()
    by_view = sum(nbytes.get(name, 0) for name in store.by_view)
    return {
        "path": str(store.path),
        "sha256": store.storage.sha256,
        "format": manifest.format,
        "created": manifest.created,
        "teacher": asdict(manifest.teacher),
        "teacher_top1": manifest.teacher_top1,
        "recipe": manifest.recipe.to_dict(),
        "recipe_fingerprint": manifest.recipe.fingerprint,
        "seed": manifest.seed,
        "topk": manifest.topk,
        "logits": manifest.logits,
        "shards": len(manifest.shards),
        "samples": int(counts.sum()),
        "skipped": [asdict(sample) for sample in manifest.skipped],
        "views": store.views,
        "views_in_a_block": manifest.block,
        "labels": cached,
        "labels_missing": asked - cached,
        "complete": cached == asked,
        "views_by_shard": {s.name: n for s, n in zip(manifest.shards, done.sum(axis=0).tolist(), strict=True)},
        "shards_by_block": (done == block_sizes(store)[:, None]).sum(axis=1).tolist(),
        "fill_with": None if cached == asked else command_to_fill(store),
        "bytes": sum(nbytes.values()),
        "bytes_by_array": nbytes,
        "bytes_by_array_uncompressed": raw,
        "bytes_per_view": round(by_view / cached, 3) if cached else None,
        "compression": "Zstandard, level 3, with a checksum of every chunk",
        "versions": manifest.versions,
        "drifted": manifest.drifted(),
    }


def completeness(store: Store) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Return how many views of each block are cached, (block, shard)."""
    done = np.repeat(block_sizes(store)[:, None], len(store.counts), axis=1)
    for unit in store.units():
        done[unit.block, unit.shard] -= len(unit.views)
    return done


def block_sizes(store: Store) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Return how many views each block has."""
    return np.array([len(views) for views in store.blocks], np.int64)


def command_to_fill(store: Store) -> str:
    """Return the command that does what is missing, with the shards' names, which are wherever they are."""
    shards = names_in_braces(store.manifest.shard_names)
    command = ["distillcache", "cache-teacher", "--shards", shards, "--cache", str(store.path)]
    return shlex.join([*command, "--teacher", store.manifest.teacher.name])


def names_in_braces(names: Sequence[str]) -> str:
    """Return shard names as one pattern: `train-{000000..001023}.tar`, where they are numbered without a gap."""
    parts = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    if len(names) > 1 and all(parts):
        heads, numbers, tails = zip(*(part.groups() for part in parts if part), strict=True)
        counted = range(int(numbers[0]), int(numbers[0]) + len(names))
        if len({*heads}) == len({*tails}) == len({len(n) for n in numbers}) == 1 and [*map(int, numbers)] == [*counted]:
            return f"{heads[0]}{{{numbers[0]}..{numbers[-1]}}}{tails[0]}"
    return names[0] if len(names) == 1 else f"{{{','.join(names)}}}"


def info_text(store: Store) -> str:
    """Return `info` as a table that fits a terminal."""
    facts = info(store)
    recipe, teacher = facts["recipe"], facts["teacher"]
    per_view = f", of which labels, checks and logits take {facts['bytes_per_view']} a view" if facts["labels"] else ""
    rows = [
        ("store", f"{facts['path']} (format {facts['format']}, {facts['created']})"),
        ("teacher", f"{teacher['name']}, {teacher['dtype']}, {teacher['input_size']} pixels, {teacher['sha256'][:16]}"),
        (
            "recipe",
            f"{recipe['name']} at {recipe['size']} pixels, {recipe['repeats']} repeats, {facts['recipe_fingerprint']}",
        ),
        *(("", line) for line in _in_lines(f"{k}={_short(v)}" for k, v in recipe.items() if k != "name")),
        ("shards", f"{facts['shards']} with {facts['samples']:,} samples"),
        ("views", f"{facts['views']} a sample, in blocks of {facts['views_in_a_block']}"),
        ("labels", f"{facts['labels']:,}" + (f", {facts['labels_missing']:,} missing" * (not facts["complete"]))),
        *_logits(facts),
        *([("packed", f"SHA-256 {facts['sha256']}")] if facts["sha256"] else []),
        ("bytes", f"{facts['bytes']:,} in all{per_view}"),
        *(("", line) for line in _in_lines(f"{k} {v:,}" for k, v in facts["bytes_by_array"].items())),
    ]
    if facts["teacher_top1"] is not None:
        rows.insert(2, ("top-1", f"{facts['teacher_top1']:.2f}% on held-out shards"))
    if not facts["complete"]:
        rows += [("missing", line) for line in _missing(store, facts)]
        rows += [("fill", facts["fill_with"]), ("", "(name the shards with their folder)")]
    rows += [
        ("made by" if not i else "", line) for i, line in enumerate(_in_lines(map(" ".join, facts["versions"].items())))
    ]
    if facts["skipped"]:
        first, more = facts["skipped"][0], len(facts["skipped"]) - 1
        named = f"{first['shard']}, key {first['key']}: {first['reason']}" + f"; and {more} more (--json)" * bool(more)
        rows.append(("skipped", named))
    if facts["drifted"]:
        rows.append(("drift", "; ".join(facts["drifted"])))
    return "\n".join(f"{name:<8} {value}" for name, value in rows)


def _logits(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the row on what is kept beside the label, if anything is."""
    if facts["logits"]:
        return [("logits", f"of all {facts['teacher']['classes']:,} classes, in {facts['logits']} bits")]
    return [("logits", f"the {facts['topk']:,} largest, in float16")] if facts["topk"] else []


def _missing(store: Store, facts: dict[str, Any]) -> list[str]:
    """Return what is missing, block by block."""
    lines = []
    for views, shards in zip(store.blocks, facts["shards_by_block"], strict=True):
        if shards < facts["shards"]:
            lines.append(f"views {views[0]} to {views[-1]}: {shards} of {facts['shards']} shards are done")
    return [*lines[:5], f"and {len(lines) - 5} more blocks (--json)"] if len(lines) > 6 else lines


def _in_lines(words: Any, width: int = 70) -> list[str]:
    """Return words joined by two spaces, in lines of at most `width`."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) + 2 > width:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + word
    return lines


def _short(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return ",".join(v if isinstance(v, str) else f"{v:g}" for v in value) or "none"
