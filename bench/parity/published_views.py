"""What the published code says of sampling, mixing, augmentation and evaluation: see `published`."""

import io
import re
import zlib
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from published_training import options
from samplers import RASampler
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, Mixup, auto_augment
from timm.data.mixup import cutmix_bbox_and_lam

from datasets import build_transform

Tensors = dict[str, torch.Tensor]


def opened(photo: torch.Tensor) -> Image.Image:
    """Return a photo as DeiT's loader opens it."""
    return Image.open(io.BytesIO(photo.numpy().tobytes())).convert("RGB")


def mixup(**changes: Any) -> Mixup:
    """Return what main.py mixes with."""
    o = options(**changes)
    return Mixup(
        mixup_alpha=o.mixup,
        cutmix_alpha=o.cutmix,
        cutmix_minmax=o.cutmix_minmax,
        prob=o.mixup_prob,
        switch_prob=o.mixup_switch_prob,
        mode=o.mixup_mode,
        label_smoothing=o.smoothing,
        num_classes=1000,
    )


def sampler(images: int, epochs: int, processes: int, batch: int, large: list[int]) -> dict[str, Any]:
    """Return in how many epochs each image is shown, and the steps, views and partners of an epoch.

    `large` are a number of images, of which only the steps are counted, and a batch, in which partners are.
    """
    shown = torch.zeros(images, dtype=torch.int64)
    for epoch in range(epochs):
        drawn = batches(images, epoch, processes, batch)
        shown += torch.bincount(drawn.flatten(), minlength=images) > 0
    most, large_batch = large
    in_large = batches(images, 0, processes, large_batch)
    own, partner = in_large.flatten(), in_large.flip(2).flatten()
    return {
        "shown": shown,
        "steps": drawn.shape[1],
        "views": torch.bincount(drawn.flatten(), minlength=images),
        "partners": torch.tensor([len(partner[own == image].unique()) for image in own.unique()]),
        "steps_of_large": len(RASampler(range(most), num_replicas=processes, rank=0)) // (large_batch // processes),
    }


def batches(images: int, epoch: int, processes: int, batch: int) -> torch.Tensor:
    """Return the images of an epoch: (process, step, place)."""
    drawn = []
    for rank in range(processes):
        one = RASampler(range(images), num_replicas=processes, rank=rank, shuffle=True)
        one.set_epoch(epoch)
        drawn.append(torch.tensor(list(one)).unfold(0, batch // processes, batch // processes))
    return torch.stack(drawn)


def mixing(n: int, size: int, batch: int) -> Tensors:
    """Return kind, lambda and box of `n` mixes, and how many lambdas a batch has."""
    drawn, mixer = [], mixup()
    for _ in range(n):
        lam, cutmix = mixer._params_per_batch()
        top = bottom = left = right = 0
        if cutmix:
            (top, bottom, left, right), lam = cutmix_bbox_and_lam((batch, 3, size, size), lam)
        drawn.append((cutmix, lam, top, left, bottom - top, right - left))
    _, target = mixer(torch.zeros(batch, 3, 2, 2), torch.arange(batch))
    lambdas = len(target.max(dim=1).values.unique())
    columns = ("cutmix", "lam", "top", "left", "height", "width")
    return dict(zip(columns, torch.tensor(drawn, dtype=torch.float64).T, strict=True)) | {"lambdas": lambdas}


def mixed(images: torch.Tensor, lams: list[float]) -> list[torch.Tensor]:
    """Return the mixes of two normalised images with each lambda, as timm's mixup has them."""
    answers = []
    for lam in lams:
        mixer = mixup(mixup=1.0, cutmix=0.0)
        mixer._params_per_batch = lambda lam=lam: (lam, False)
        answers.append(mixer(images.clone(), torch.tensor([0, 1]))[0])
    return answers


class Canvas:
    """An image of `size` pixels for RandomErasing that notes which box is set, and to what."""

    dtype = torch.float32

    def __init__(self, size: int) -> None:
        self.shape, self.boxes, self.noise = (3, size, size), [], []

    def size(self) -> tuple[int, ...]:
        return self.shape

    def __setitem__(self, place: tuple[slice, ...], values: torch.Tensor) -> None:
        _, rows, columns = place
        self.boxes.append((rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start))
        if len(self.noise) < 100:
            self.noise.append(values.flatten())


def transforms(n: int, size: int, height: int, width: int) -> dict[str, Any]:
    """Return what the published training transform draws for `n` views of a `height` x `width` image."""
    crop, flip, randaugment, _, _, erase = build_transform(True, options(input_size=size)).transforms
    photo, canvas = Image.new("RGB", (width, height)), Canvas(size)
    applied: list[tuple[int, float]] = []
    for number, (op, name) in enumerate(zip(randaugment.ops, auto_augment._RAND_INCREASING_TRANSFORMS, strict=True)):
        scale = size if name.startswith("Translate") else 1
        op.aug_fn = lambda image, *args, number=number, scale=scale, **_: (
            applied.append((number, args[0] * scale if args else 0.0)) or image
        )
    ops_a_view, crops, flips, marked = [], [], 0, torch.tensor([[[0.0, 1.0]]])
    for _ in range(n):
        before = len(applied)
        crops.append(crop.get_params(photo, crop.scale, crop.ratio))
        flips += bool(flip(marked)[0, 0, 0])
        randaugment(photo)
        erase(canvas)
        ops_a_view.append(len(applied) - before)
    return {
        "crops": torch.tensor(crops),
        "flips": flips,
        "ops": torch.tensor([number for number, _ in applied]),
        "values": torch.tensor([value for _, value in applied], dtype=torch.float64),
        "ops_a_view": torch.tensor(ops_a_view),
        "erased": torch.tensor(canvas.boxes),
        "noise": torch.cat(canvas.noise),
    }


def small(n: int, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the corners of `n` crops at 32 pixels, the crop at each corner, and the image in evaluation."""
    crop, photo = build_transform(True, options(input_size=32)).transforms[0], Image.fromarray(image.numpy())
    padded = Image.new("RGB", (40, 40))
    corners = [crop.get_params(padded, crop.size)[:2] for _ in range(n)]
    crops = []
    for corner in ((top, left) for top in range(9) for left in range(9)):
        crop.get_params = lambda image, size, corner=corner: (*corner, *size)
        crops.append(torch.from_numpy(np.array(crop(photo))))
    normalised = build_transform(False, options(input_size=32))(photo)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    evaluated = ((normalised * std + mean) * 255).round().to(torch.uint8).permute(1, 2, 0)
    return {"corners": torch.tensor(corners), "crops": torch.stack(crops), "evaluated": evaluated}


def ops(views: torch.Tensor, names: list[str], values: list[float]) -> torch.Tensor:
    """Return each of `views` (n, height, width, RGB) after its op, by timm's functions and Pillow."""
    whole = ("Posterize", "Solarize", "SolarizeAdd")
    arguments = [(int(value) if name in whole else value,) for name, value in zip(names, values, strict=True)]
    return torch.stack([applied(*task) for task in zip(views, names, arguments, strict=True)])


def ops_at(views: torch.Tensor, names: list[str], levels: list[float], signs: list[int]) -> torch.Tensor:
    """Return each of `views` after its op, with the argument that timm makes of a level 0..1."""
    done = []
    for view, name, level, sign in zip(views, names, levels, signs, strict=True):
        auto_augment._randomly_negate = lambda value, sign=sign: sign * value
        [timms] = (n for n in auto_augment._RAND_INCREASING_TRANSFORMS if re.sub("Increasing|Rel", "", n) == name)
        argument = auto_augment.LEVEL_TO_ARG[timms]
        done.append(applied(view, timms, argument(10 * level, {}) if argument else ()))
    return torch.stack(done)


def applied(view: torch.Tensor, name: str, arguments: tuple[float, ...]) -> torch.Tensor:
    """Return a view after an op as AugmentOp calls it."""
    if auto_augment.LEVEL_TO_ARG[name] is None:
        arguments = ()
    how = {"fillcolor": (124, 116, 104), "resample": Image.BICUBIC}
    return torch.from_numpy(np.array(auto_augment.NAME_TO_OP[name](Image.fromarray(view.numpy()), *arguments, **how)))


def crops(photos: list[torch.Tensor], boxes: list[list[int]], size: int) -> torch.Tensor:
    """Return each photo's box (top, left, height, width), resized as the training transform does."""
    interpolation = build_transform(True, options(input_size=size)).transforms[0].interpolation
    cut = [
        TF.resized_crop(opened(photo), *box, (size, size), interpolation)
        for photo, box in zip(photos, boxes, strict=True)
    ]
    return torch.from_numpy(np.stack([np.array(image) for image in cut]))


def evaluation(photos: list[torch.Tensor], size: int) -> dict[str, Any]:
    """Return what DeiT's evaluation shows a model, normalised (n, 3, size, size), and each photo's decoded CRC-32."""
    transform, images = build_transform(False, options(input_size=size)), [opened(photo) for photo in photos]
    return {
        "views": torch.stack([transform(image) for image in images]),
        "decoded": [zlib.crc32(image.tobytes()) for image in images],
    }


ANSWERS = {
    "sampler": sampler,
    "mixing": mixing,
    "mixed": mixed,
    "transforms": transforms,
    "small": small,
    "ops": ops,
    "ops_at": ops_at,
    "crops": crops,
    "evaluation": evaluation,
}
