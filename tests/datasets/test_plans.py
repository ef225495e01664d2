"""Plans beside timm's own random choices: 100,000 of each, set up as DeiT sets them up."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chi2_contingency, ks_2samp
from timm.data import auto_augment, random_erasing
from timm.data.mixup import Mixup, cutmix_bbox_and_lam
from timm.data.transforms import RandomResizedCropAndInterpolation

from distillcache.datasets.pixels import _noise
from distillcache.datasets.plans import RANDAUGMENT_OPS, Box, Erase, ViewPlan, plan_mix, plan_view
from distillcache.datasets.recipes import named

N = 100_000
HEIGHT, WIDTH, SIZE = 375, 500, 224
DEIT = named("deit")


@pytest.fixture(scope="module")
def plans() -> list[ViewPlan]:
    return [plan_view(DEIT, seed, seed % 7, HEIGHT, WIDTH) for seed in range(N)]


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(1)
    np.random.seed(1)


def same_distribution(ours: list[float], theirs: list[float]) -> None:
    assert ks_2samp(ours, theirs).pvalue > 0.001


def same_counts(ours: Counter[str], theirs: Counter[str]) -> None:
    names = sorted(set(ours) | set(theirs))
    assert chi2_contingency([[ours[n] for n in names], [theirs[n] for n in names]]).pvalue > 0.001


def test_crops_follow_timms_random_resized_crop(plans: list[ViewPlan]) -> None:
    image = Image.new("RGB", (WIDTH, HEIGHT))
    crop = RandomResizedCropAndInterpolation(SIZE, interpolation="bicubic")
    theirs = [crop.get_params(image, crop.scale, crop.ratio) for _ in range(N)]  # top, left, height, width
    ours = [(p.crop.top, p.crop.left, p.crop.height, p.crop.width) for p in plans]
    for measure in (
        lambda t, le, h, w: h * w,
        lambda t, le, h, w: w / h,
        lambda t, le, h, w: t,
        lambda t, le, h, w: le,
    ):
        same_distribution([measure(*box) for box in ours], [measure(*box) for box in theirs])


@pytest.mark.parametrize(("height", "width"), [(10, 300), (300, 10), (1, 1), (1, 5000), (64, 64)])
def test_crops_of_extreme_images_stay_inside_and_fall_back_as_timms(height: int, width: int) -> None:
    for seed in range(200):
        box = plan_view(DEIT, seed, 0, height, width).crop
        assert box.height >= 1 <= box.width
        assert 0 <= box.top <= height - box.height and 0 <= box.left <= width - box.width
    if max(height, width) == 300:  # no random crop of these ever fits: both take the centre
        crop = RandomResizedCropAndInterpolation(SIZE)
        theirs = crop.get_params(Image.new("RGB", (width, height)), crop.scale, crop.ratio)
        boxes = [plan_view(DEIT, seed, 0, height, width).crop for seed in range(200)]
        assert theirs in {(b.top, b.left, b.height, b.width) for b in boxes}


def test_flips_are_fair(plans: list[ViewPlan]) -> None:
    assert abs(sum(p.hflip for p in plans) / N - 0.5) < 4 * 0.5 / N**0.5


def test_randaugment_follows_timms(plans: list[ViewPlan]) -> None:
    """Which ops, how many of them, and with which arguments."""
    hparams = {"translate_const": int(SIZE * 0.45), "img_mean": (124, 116, 104)}
    randaugment = auto_augment.rand_augment_transform("rand-m9-mstd0.5-inc1", hparams)
    applied: list[tuple[str, float]] = []
    for op in randaugment.ops:
        name = op.name.removesuffix("Increasing").removesuffix("Rel")
        scale = SIZE if name.startswith("Translate") else 1
        op.aug_fn = lambda image, *args, name=name, scale=scale, **_: (
            applied.append((name, args[0] * scale if args else 0.0)) or image
        )
    image, per_view = Image.new("RGB", (2, 2)), Counter()
    for _ in range(N):
        before = len(applied)
        randaugment(image)
        per_view[str(len(applied) - before)] += 1
    ours = [(op.name, op.value) for plan in plans for op in plan.ops]
    same_counts(Counter(str(len(plan.ops)) for plan in plans), per_view)
    same_counts(Counter(name for name, _ in ours), Counter(name for name, _ in applied))
    for name in RANDAUGMENT_OPS:
        same_distribution([v for n, v in ours if n == name], [v for n, v in applied if n == name])


def test_erasing_follows_timms(plans: list[ViewPlan], monkeypatch: pytest.MonkeyPatch) -> None:
    boxes: list[tuple[int, int]] = []

    def record(per_pixel: bool, rand_color: bool, shape: tuple[int, int, int], **_: object) -> torch.Tensor:
        boxes.append(shape[1:])
        return torch.zeros(shape)

    monkeypatch.setattr(random_erasing, "_get_pixels", record)
    erasing, image = random_erasing.RandomErasing(0.25, mode="pixel", device="cpu"), torch.zeros(3, SIZE, SIZE)
    for _ in range(N):
        erasing(image)
    ours = [p.erase.box for p in plans if p.erase]
    assert abs(len(ours) - len(boxes)) < 4 * (2 * N * 0.25 * 0.75) ** 0.5
    same_distribution([b.height * b.width for b in ours], [h * w for h, w in boxes])
    same_distribution([b.height / b.width for b in ours], [h / w for h, w in boxes])


def test_mixing_follows_timms() -> None:
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, mode="batch", num_classes=1000)
    theirs: dict[str, list[float]] = {"mixup": [], "cutmix": []}
    for _ in range(N):
        lam, use_cutmix = mixup._params_per_batch()
        if use_cutmix:
            _, lam = cutmix_bbox_and_lam((SIZE, SIZE), lam)
        theirs["cutmix" if use_cutmix else "mixup"].append(float(lam))
    ours: dict[str, list[float]] = {"mixup": [], "cutmix": []}
    for seed in range(N):
        mix = plan_mix(DEIT, seed, seed + 2**40, 5)
        ours[mix.kind].append(mix.lam)
    for kind in ours:
        assert abs(len(ours[kind]) - len(theirs[kind])) < 4 * (N / 2) ** 0.5
        same_distribution(ours[kind], theirs[kind])


def test_noise_has_imagenets_mean_and_spread() -> None:
    """Random erasing's pixels beside timm's: normal noise, as it looks in uint8 before it is normalised."""
    noise = _noise(Erase(box=Box(top=0, left=0, height=200, width=200), seed=3, view=1)).reshape(-1, 3)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    drawn = torch.randn(40_000, 3, generator=torch.Generator().manual_seed(0)) * std + mean
    theirs = (drawn * 255).round().clamp(0, 255).numpy()
    for channel in range(3):
        same_distribution(noise[:, channel].tolist(), theirs[:, channel].tolist())
