"""Comparing students: how often they, the teacher and the ground truth disagree, and how alike their tokens grow."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ..cache.opening import open_store
from ..cache.store import Store
from ..datasets.order import in_sequence
from ..datasets.samples import Samples
from ..datasets.shards.files import expand
from ..datasets.shards.mirror import DEFAULT, Mirror
from ..runtime.errors import InputError
from ..runtime.paths import PathLike
from ..runtime.reporting import SILENT, Reporter
from .evaluate import BATCH_SIZE, CentreCrops, labelled
from .student import Student
from .trained import open_trained


def compare_students(
    checkpoints: Sequence[PathLike],
    shards: str | Sequence[str],
    *,
    store: Store | PathLike | None = None,
    crop_pct: float | None = None,
    batch_size: int = BATCH_SIZE,
    amp: bool | None = None,
    device: str = "auto",
    workers: int | None = None,
    mirror: Mirror = DEFAULT,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Say how often ground truth, teacher and students' heads disagree, and how alike a student's two tokens are.

    Returns `names`, m of them: `ground truth`, `teacher` with a store, and each student's heads; `disagreement`, lists
    (m, m) of the share of `images` on which two differ; `token_similarity`, by student the cosine similarity of its
    class and distillation token, as learned and after each block.

    Args:
        checkpoints: Trained students, as `evaluate_student` takes them.
        shards: WebDataset tars: paths, URLs, with braces and globs.
        store: What the teacher says of these shards: a store by `recipe="none"`.
        crop_pct: The centre crop's share of the shorter side; each run's own, or 0.875.
        batch_size: Images at a time.
        amp: bfloat16 autocast; on a GPU.
        device: `cpu`, `cuda`, `cuda:1`; `auto`: a GPU if there is any.
        workers: Processes that decode; by default one a core, and without a GPU 0: threads of this process.
        mirror: Where shards from far away are held.
        reporter: Told how far the work is.

    Raises:
        InputError: A ValueError, one line of text: for what is wrong with a checkpoint, the shards or the store.
    """
    if isinstance(checkpoints, (str, os.PathLike)):
        checkpoints = [checkpoints]
    if not checkpoints:
        raise InputError("`checkpoints`", "one or more students", "none")
    opened = [
        open_trained(path, crop_pct=crop_pct, batch_size=batch_size, amp=amp, device=device, workers=workers)
        for path in checkpoints
    ]
    known = store if isinstance(store, Store) or store is None else open_store(store, mirror)
    samples = known.samples(expand(shards), mirror) if known else None
    samples = samples or labelled(shards, mirror, reporter)
    rows = in_sequence(samples.count.tolist())
    labels = {"ground truth": samples.target[rows.shard, rows.sample].astype(np.int64)}
    if known:
        labels["teacher"] = teacher_labels(known)
    tokens: dict[str, list[float]] = {}
    passes = sum(1 + one.student.has_distillation_token for one in opened)  # the second is over the tokens
    with reporter.part("compare", passes * len(rows), "images") as told:
        for one in opened:
            predicted = one.predict(samples, told)
            labels |= {f"{one.name} {head}": classes[:, 0] for head, classes in predicted.classes.items()}
            if one.student.has_distillation_token:
                tokens[one.name] = token_similarity(one.student, one.crops, samples, reporter=told)
    matrix = disagreement(labels)
    return {
        "images": len(rows), "names": list(labels), "disagreement": matrix.tolist(), "token_similarity": tokens,
    }  # fmt: skip


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
    if recipe.augments:
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
