"""Evaluation: what each head, and both together, say of labelled shards."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..cache.teacher import Teacher
from ..datasets.augment.recipes import named
from ..datasets.loader import Loader
from ..datasets.order import Rows, in_sequence
from ..datasets.samples import Samples, samples_of
from ..datasets.shards.files import expand
from ..datasets.shards.index import ShardIndex, index_shards
from ..datasets.shards.mirror import Mirror
from ..datasets.views import Renderer
from ..runtime.errors import InputError
from ..runtime.reporting import SILENT, Reporter
from ..runtime.transfers import to_device
from .student import Student

BATCH_SIZE = 256
_LARGEST = 5
_LogitsOf = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]


def read_index(shards: str | Sequence[str], mirror: Mirror, reporter: Reporter) -> list[ShardIndex]:
    """Return the index of every shard that `shards` names."""
    with reporter.part("reading shards", None, "shards") as told:
        return index_shards(expand(shards), digest=False, mirror=mirror, reporter=told)


def labelled(shards: str | Sequence[str], mirror: Mirror, reporter: Reporter) -> Samples:
    """Return the samples of labelled shards, to be evaluated on."""
    return samples_of(read_index(shards, mirror, reporter), 0, mirror)


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """What a model says of every sample, in the shards' order: a head's k = 5 largest classes, or all if fewer.

    `target` is int64 (n,); `classes` int64 and `probabilities` float32 are (n, k) for each head, largest first.
    `both` is the average of the two heads' logits, as timm and DeiT's code have it.
    """

    target: NDArray[np.int64]
    classes: dict[str, NDArray[np.int64]]
    probabilities: dict[str, NDArray[np.float32]]
    losses: dict[str, float]
    """Sum over all samples of each head's cross-entropy with the target."""
    seconds: float
    model_seconds: float
    """Time in the model alone, without reading and decoding."""

    def accuracy(self, k: int = 1) -> dict[str, float]:
        """Return the top-k accuracy of each head, percent."""
        return {
            head: 100 * float((classes[:, :k] == self.target[:, None]).any(axis=1).mean())
            for head, classes in self.classes.items()
        }

    def real_accuracy(self, labels: Sequence[Sequence[int]]) -> dict[str, float]:
        """Return the top-1 accuracy of each head, percent, by `real_labels`; images that have none don't count."""
        counted = [row for row, known in enumerate(labels) if known]
        return {
            head: 100 * sum(int(classes[row, 0]) in labels[row] for row in counted) / max(len(counted), 1)
            for head, classes in self.classes.items()
        }

    def to_table(self, shards: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
        """Return columns, a row a sample: shard, key, target and, of each head, its largest classes, how likely."""
        columns: dict[str, Any] = {
            "shard": np.array(shards, object),
            "key": np.array(keys, object),
            "target": self.target,
        }
        for head, classes in self.classes.items():
            columns[head] = classes[:, 0]
            columns[f"{head}_top{classes.shape[1]}"] = classes
            columns[f"{head}_probability"] = self.probabilities[head]
        return columns


def real_labels(keys: Sequence[str]) -> list[Sequence[int]]:
    """Return the ReaL labels (Beyer et al. 2020) of ImageNet's validation images, as timm ships them.

    `keys` are the images' own names, ILSVRC2012_val_00000001 and so on. Raises ValueError for others.
    """
    from timm.data import RealLabelsImagenet

    known = RealLabelsImagenet([""] * 50_000).real_labels
    names = [f"{key.rpartition('/')[2]}.JPEG" for key in keys]
    if unknown := [key for key, name in zip(keys, names, strict=True) if name not in known]:
        raise InputError("`real`", "keys of ImageNet's validation images", unknown[0], "leave `real` out")
    return [known[name] for name in names]


@dataclass(frozen=True, kw_only=True, slots=True)
class CentreCrops:
    """How samples are evaluated: each by its centre crop, in the shards' order."""

    size: int
    """Height and width, pixels."""
    crop_pct: float
    """Side of the crop as a share of the image's shorter side."""
    device: torch.device
    workers: int
    batch_size: int = BATCH_SIZE
    part: int = 0
    """Which of `parts` of the samples, as equal as can be, is evaluated."""
    parts: int = 1

    def rows(self, samples: Samples) -> Rows:
        """Return the part's samples."""
        rows = in_sequence(samples.count.tolist())
        first, end = (part * len(rows) // self.parts for part in (self.part, self.part + 1))
        return rows[first:end]

    def of(self, samples: Samples, reporter: Reporter = SILENT) -> Iterator[torch.Tensor]:
        """Yield batches of uint8 images (n, size, size, RGB) on the device."""
        recipe = named("none", size=self.size, overrides=[f"crop_pct={self.crop_pct}"])
        batches = self.rows(samples).batches(self.batch_size)
        on_gpu = self.device.type == "cuda"
        with Loader(Renderer(recipe, samples), workers=self.workers, pin_memory=on_gpu) as loader:
            for _, views in loader.load(batches):
                yield to_device(self.device, views.images)[0]
                reporter.advance(len(views.images))


@torch.inference_mode()
def predict(
    logits_of: _LogitsOf, heads: tuple[str, ...], crops: CentreCrops, samples: Samples, reporter: Reporter = SILENT
) -> Predictions:
    """Return what a model says of the `crops` of `samples`, or of the part of them that those are of.

    `logits_of` takes uint8 images (n, height, width, RGB) and returns logits (n, classes) for each head.
    """
    started, in_model = time.monotonic(), 0.0
    names = (*heads, "both") if len(heads) == 2 else heads
    rows = crops.rows(samples)
    target = torch.from_numpy(samples.target[rows.shard, rows.sample].astype(np.int64))
    done, losses = 0, torch.zeros(len(names), dtype=torch.float64, device=crops.device)
    found: list[list[torch.return_types.topk]] = []
    for images in crops.of(samples, reporter):
        before = _now(crops.device)
        logits = logits_of(images)
        in_model += _now(crops.device) - before
        if len(heads) == 2:
            logits = (*logits, (logits[0] + logits[1]) / 2)
        wanted = target[done : done + len(images)].to(crops.device)
        known = wanted < logits[0].shape[1]
        losses += torch.stack([F.cross_entropy(h.float()[known], wanted[known], reduction="sum") for h in logits])
        done += len(images)
        found.append([head.float().softmax(1).topk(min(_LARGEST, head.shape[1]), dim=1) for head in logits])
    by_head = {name: [part[i] for part in found] for i, name in enumerate(names)}
    return Predictions(
        target=target.numpy(),
        losses=dict(zip(names, losses.tolist(), strict=True)),
        classes={name: torch.cat([top.indices for top in parts]).cpu().numpy() for name, parts in by_head.items()},
        probabilities={name: torch.cat([top.values for top in parts]).cpu().numpy() for name, parts in by_head.items()},
        seconds=time.monotonic() - started,
        model_seconds=in_model,
    )


def predict_student(
    student: Student, crops: CentreCrops, samples: Samples, *, amp: bool, reporter: Reporter = SILENT
) -> Predictions:
    """Return what a student says of the `crops` of `samples`; it is left in the mode it was in."""
    training = student.training
    student.eval()

    def logits_of(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.autocast(crops.device.type, torch.bfloat16, enabled=amp):
            return tuple(head.float() for head in student(images))

    try:
        return predict(logits_of, student.heads, crops, samples, reporter)
    finally:
        student.train(training)


def measure(student: Student, crops: CentreCrops, samples: Samples, *, amp: bool) -> dict[str, float]:
    """Return sums over the `crops` of a part of `samples`, by `top1_HEAD`, `top5_HEAD` and `val_loss_HEAD`.

    How many each head of a student classifies rightly, has among its five likeliest classes, and its cross-entropy.
    """
    heads = (*student.heads, "both") if len(student.heads) == 2 else student.heads
    if not len(crops.rows(samples)):
        return {f"{name}_{head}": 0.0 for name in ("top1", "top5", "val_loss") for head in heads}
    found = predict_student(student, crops, samples, amp=amp)
    of_k = {
        f"top{k}_{head}": share * len(found.target) / 100 for k in (1, 5) for head, share in found.accuracy(k).items()
    }
    return of_k | {f"val_loss_{head}": loss for head, loss in found.losses.items()}


def teacher_top1(teacher: Teacher, held_out: Samples, *, device: torch.device, workers: int) -> float:
    """Return a teacher's top-1 on held-out samples, percent."""
    crops = CentreCrops(size=teacher.input_size, crop_pct=teacher.crop_pct, device=device, workers=workers)
    return predict(lambda images: (teacher.logits(images),), ("class",), crops, held_out).accuracy()["class"]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()
