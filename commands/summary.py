"""The short table that a finished run ends with."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..runtime.paths import AnyPath

if TYPE_CHECKING:
    from ..cache.store import Store


def summary_text(summary: dict[str, Any], store: "Store | None", shards: Sequence[str], out: AnyPath) -> str:
    """Return the short table that a finished run ends with."""
    from ..inspection.info import info

    top1 = {head: summary[f"top1_{head}"] for head in ("class", "distill", "both") if f"top1_{head}" in summary}
    rows = [(f"student top-1, {head} head{'s' * (head == 'both')}", f"{v:.2f}%") for head, v in top1.items()]
    rows += [
        (f"{name.replace('_top1_', ' top-1, ')}", f"{v:.2f}%") for name, v in summary.items() if "ema_top1" in name
    ]
    rows = rows or [("student top-1", _percent(None))]
    if store:
        facts = info(store)
        size = f"{facts['bytes']:,} bytes, {facts['bytes_per_view']} bytes a view ({facts['labels']:,} views)"
        teacher = _percent(store.manifest.teacher_top1, "cache-teacher --val-shards")
        rows = [("teacher top-1", teacher), *rows, ("store", size)]
    rows += [("shards", " ".join(shards))]
    rows += [("cache", str(store.path))] if store else []
    rows += [("student", f"{out / 'student.safetensors'}")]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _percent(value: float | None, measured_by: str = "--val-shards") -> str:
    return f"not measured ({measured_by})" if value is None else f"{value:.2f}%"
