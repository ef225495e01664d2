"""Crops, ops and evaluation on real photos: ours, beside the published code's by Pillow."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comparison import Comparison, Row, pixels

from distillcache.datasets.augment import pixels as renderer
from distillcache.datasets.augment.ops import apply_op
from distillcache.datasets.augment.plans import RANDAUGMENT_OPS, Op, ViewPlan, _op_value, plan_view
from distillcache.datasets.augment.recipes import named
from distillcache.datasets.samples import Samples
from distillcache.models.loading import load_teacher
from distillcache.train.config import Config
from distillcache.train.evaluate import CentreCrops

DEIT = named("deit")
SIZE = DEIT.size
PHOTOS_OF_OPS, ARGUMENTS = 8, 8
CPU = torch.device("cpu")
NEAR_TIE = 0.1
"""Logits of the two largest classes that lie no further apart are a tie, which the last bit of a pixel may decide."""


def read(samples: Samples) -> list[bytes]:
    return [samples.read(shard, i) for shard, n in enumerate(samples.count.tolist()) for i in range(n)]


def as_tensors(photos: list[bytes]) -> list[torch.Tensor]:
    return [torch.frombuffer(bytearray(photo), dtype=torch.uint8) for photo in photos]


def crops(photos: list[bytes]) -> Comparison:
    """Compare the training crop of every photo, resized, with equal boxes."""
    images = [renderer.decode(photo) for photo in photos]
    plans = [plan_view(DEIT, seed, 0, *image.shape[:2]) for seed, image in enumerate(images)]

    def rows(theirs: dict[str, Any]) -> list[Row]:
        views = [rendered(plan, image) for plan, image in zip(plans, images, strict=True)]
        return [pixels(f"crop and resize of {len(photos)} photos", stacked(views), theirs["crops"], at_most=2)]

    boxes = [[plan.crop.top, plan.crop.left, plan.crop.height, plan.crop.width] for plan in plans]
    return Comparison(
        name="ops", ask={"crops": {"photos": as_tensors(photos), "boxes": boxes, "size": SIZE}}, rows=rows
    )


def rendered(plan: ViewPlan, image: np.ndarray) -> np.ndarray:
    """Return the crop of a plan, and nothing of what follows it."""
    return renderer.render(ViewPlan(size=plan.size, crop=plan.crop, hflip=False, ops=(), erase=None), image)


def stacked(images: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images))


def ops(photos: list[bytes]) -> Comparison:
    """Compare every op on crops of photos, with arguments that plans have drawn."""
    views = views_of(photos[:PHOTOS_OF_OPS])
    drawn = arguments()
    tasks = [(view, Op(name=name, value=value)) for name, values in drawn.items() for value in values for view in views]

    def rows(theirs: dict[str, Any]) -> list[Row]:
        ours, compared = stacked([apply_op(view, op) for view, op in tasks]), []
        for name in drawn:
            of = torch.tensor([op.name == name for _, op in tasks])
            within = 1 if name.startswith(("Shear", "Translate")) else 0
            compared.append(pixels(f"{name}, {int(of.sum())} images", ours[of], theirs["ops"][of], at_most=within))
        return compared

    asked = {
        "views": stacked([view for view, _ in tasks]),
        "names": [op.name for _, op in tasks],
        "values": [float(op.value) for _, op in tasks],
    }
    return Comparison(name="ops", ask={"ops": asked}, rows=rows)


def rounding(photos: list[bytes]) -> Comparison:
    """Compare ops whose argument is a binary fraction with timm's, whose argument is whatever the level makes of it."""
    views, rng = views_of(photos[:PHOTOS_OF_OPS]), np.random.default_rng(0)
    tasks = [
        (view, name, float(np.clip(rng.normal(0.9, 0.05), 0, 1)), int(rng.choice([-1, 1])))
        for name in RANDAUGMENT_OPS
        for _ in range(ARGUMENTS)
        for view in views
    ]

    def rows(theirs: dict[str, Any]) -> list[Row]:
        ours = stacked(
            [apply_op(view, Op(name=n, value=_op_value(n, level, sign, SIZE))) for view, n, level, sign in tasks]
        )
        rotated = torch.tensor([name == "Rotate" for _, name, *_ in tasks])
        differing = (ours != theirs["ops_at"]).double().mean(dim=(1, 2, 3))
        return [
            Row(
                what=f"{what}, argument rounded, share of values that differ",
                difference=100 * float(differing[of].mean()),
                unit="%",
                at_most=at_most,
                said=True,
            )
            for what, of, at_most in (("Rotate", rotated, 2.0), ("the other ops", ~rotated, 0.5))
        ]

    columns = dict(
        zip(("names", "levels", "signs"), map(list, zip(*(task[1:] for task in tasks), strict=True)), strict=True)
    )
    return Comparison(name="ops", ask={"ops_at": {"views": stacked([task[0] for task in tasks]), **columns}}, rows=rows)


def views_of(photos: list[bytes]) -> list[np.ndarray]:
    """Return a crop of each photo, resized."""
    images = [renderer.decode(photo) for photo in photos]
    return [rendered(plan_view(DEIT, seed, 0, *image.shape[:2]), image) for seed, image in enumerate(images)]


def arguments() -> dict[str, list[float]]:
    """Return different arguments of each op that plans draw, at most `ARGUMENTS`."""
    drawn: dict[str, dict[float, None]] = {name: {} for name in RANDAUGMENT_OPS}
    for seed in range(2000):
        for op in plan_view(DEIT, seed, 0, 375, 500).ops:
            drawn[op.name][op.value] = None
    return {name: list(values)[:ARGUMENTS] for name, values in drawn.items()}


def evaluation(samples: Samples, photos: list[bytes], teacher: Path | None) -> Comparison:
    """Compare what is evaluated of every photo with Resize(256) and CenterCrop(224), and what a model says of it."""

    def rows(theirs: dict[str, Any]) -> list[Row]:
        crop_pct = Config(model="", classes=2, size=SIZE, data="").crop_pct
        crops = CentreCrops(size=SIZE, crop_pct=crop_pct, device=CPU, workers=0)
        ours, published = torch.cat(list(crops.of(samples))), levels(theirs["evaluation"]["views"])
        decoded = [zlib.crc32(np.ascontiguousarray(renderer.decode(photo))) for photo in photos]
        other = sum(a != b for a, b in zip(decoded, theirs["evaluation"]["decoded"], strict=True))
        of_photo = (ours.int() - published.int()).abs().float().mean(dim=(1, 2, 3))
        return [
            Row(what=f"photos of {len(photos)} that decode to other bytes", difference=other),
            Row(
                what=f"resized and cropped, mean of {len(photos)} photos",
                difference=float(of_photo.mean()),
                unit=" levels",
                where=f"worst photo {float(of_photo.max()):.2g}",
                at_most=0.05,
            ),
            *(predictions(teacher, ours, published) if teacher else []),
        ]

    return Comparison(name="evaluation", ask={"evaluation": {"photos": as_tensors(photos), "size": SIZE}}, rows=rows)


def levels(normalised: torch.Tensor) -> torch.Tensor:
    """Return normalised images as the uint8 (n, height, width, RGB) that they were made of."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (renderer.IMAGENET_MEAN, renderer.IMAGENET_STD))
    return ((normalised * std + mean) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def predictions(teacher: Path, ours: torch.Tensor, theirs: torch.Tensor) -> list[Row]:
    """Return a row of how many photos a pretrained model takes for something else."""
    model = load_teacher(str(teacher), device=CPU, amp=False)
    a, b = (torch.cat([model.logits(part) for part in views.split(32)]) for views in (ours, theirs))
    largest = b.topk(2, dim=1).values
    tie, changed = largest[:, 0] - largest[:, 1] < NEAR_TIE, a.argmax(1) != b.argmax(1)
    return [
        Row(
            what=f"top-1 class of {teacher.name}: photos that change",
            difference=int((changed & ~tie).sum()),
            where=f"and {int((changed & tie).sum())} of {int(tie.sum())} that are near-ties",
        )
    ]
