"""The logits that a soft loss learns from, out of either form in which a store keeps them."""

from typing import Any

import torch

from ..cache.quantised import dequantise
from ..cache.records import Labels
from ..cache.store import Store
from ..runtime.errors import InputError


def require_logits(store: Store, where: str) -> None:
    """Raise InputError about `where` if a store keeps hard labels only."""
    if not (store.manifest.logits or store.manifest.topk):
        remedy = "run cache-teacher with `logits=8` or `topk=K` into another store"
        raise InputError(where, f"logits in {store.path}", "hard labels only", remedy)


def logits_of(labels: Labels, at: Any, classes: int) -> torch.Tensor | None:
    """Return the teacher's logits, float32 (n, classes), each view's up to a constant; None where none were read.

    `at` is the place of n views in `labels`.
    """
    if labels.logit_code is not None and labels.logit_scale is not None and labels.logit_zero is not None:
        code, scale, zero = labels.logit_code[at], labels.logit_scale[at], labels.logit_zero[at]
        return torch.from_numpy(dequantise(code, scale, zero, classes))
    if labels.topk_index is not None and labels.topk_logit is not None:
        index = torch.from_numpy(labels.topk_index[at].astype("int64"))
        return from_topk(index, torch.from_numpy(labels.topk_logit[at]), classes)
    return None


def from_topk(index: torch.Tensor, value: torch.Tensor, classes: int) -> torch.Tensor:
    """Return log-probabilities (n, classes), float32, from the k largest: index int64 (n, k), value (n, k) falling.

    What the k leave of the probability is spread evenly over the other classes, as TinyViT and FKD do.
    """
    value = value.float()
    rest = (1 - value.exp().sum(1, keepdim=True)).clamp_min(1e-6) / max(classes - value.shape[1], 1)
    return torch.minimum(rest.log(), value[:, -1:]).repeat(1, classes).scatter_(1, index, value)
