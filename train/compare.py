"""Comparing students: how often they, the teacher and the ground truth disagree, and how alike their tokens grow."""

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from ..cache.store import Store
from ..datasets.augment.recipes import named
from ..datasets.order import in_sequence
from ..datasets.samples import Samples
from ..runtime.errors import InputError
from ..runtime.reporting import SILENT, Reporter
from .evaluate import CentreCrops
from .student import Student


def disagreement(said: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the share of samples, (m, m), on which each two of `said`, m arrays (n,) of classes, differ.

    Table 4 of Touvron et al. 2021.
    """
    classes = np.stack(list(said.values()))
    return cast(NDArray[np.float64], (classes[:, None] != classes[None]).mean(axis=2))


def teacher_labels(store: Store) -> NDArray[np.int64]:
    """Return a store's labels of view 0, int64 (n,), in the shards' order.

    Raises ValueError if the store's views are augmented or view 0 is not cached.
    """
    recipe = store.manifest.recipe
    if named("none", size=recipe.size, overrides=[f"crop_pct={recipe.crop_pct}"]).fingerprint != recipe.fingerprint:
        raise InputError("`cache`", "a store of unaugmented views (`recipe=none`)", f"recipe {recipe.name}")
    rows = in_sequence(store.counts.tolist())
    labels = store.cycle(0).label[0, rows.shard, rows.sample]
    return cast(NDArray[np.int64], labels.astype(np.int64))


@torch.inference_mode()
def token_similarity(
    student: Student, crops: CentreCrops, samples: Samples, *, reporter: Reporter = SILENT
) -> list[float]:
    """Return the mean cosine similarity of class and distillation token: as learned, then after each block."""
    student.eval()
    sums = [student.token_similarity(images).double().sum(0) for images in crops.of(samples, reporter)]
    return [float(value) / int(samples.count.sum()) for value in torch.stack(sums).sum(0)]
