"""Plans beside timm's and torchvision's own random choices: 100,000 of each, set up as DeiT and DeiT III do."""

import dataclasses
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chi2_contingency, ks_2samp
from timm.data import auto_augment, random_erasing
from timm.data.mixup import Mixup, cutmix_bbox_and_lam
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import ColorJitter, RandomChoice, RandomCrop, Resize

from distillcache.datasets.augment.plans import JITTER_OPS, RANDAUGMENT_OPS, ViewPlan, plan_mix, plan_view
from distillcache.datasets.augment.recipes import named

N = 100_000
HEIGHT, WIDTH, SIZE = 375, 500, 224
DEIT, DEIT3, SIMPLE = named("deit"), named("deit3"), named("deit3", overrides=["crop=simple"])


@pytest.fixture(scope="module")
def plans() -> list[ViewPlan]:
    return [plan_view(DEIT, seed, seed % 7, HEIGHT, WIDTH) for seed in range(N)]


@pytest.fixture(scope="module")
def deit3_plans() -> list[ViewPlan]:
    return [plan_view(DEIT3, seed, seed % 7, HEIGHT, WIDTH) for seed in range(N)]


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    torch.manual_seed(1)
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


def test_deit3_crops_and_flips_as_deit(plans: list[ViewPlan], deit3_plans: list[ViewPlan]) -> None:
    assert [(p.crop, p.hflip) for p in plans] == [(p.crop, p.hflip) for p in deit3_plans]


def test_three_augment_follows_the_published_choice(deit3_plans: list[ViewPlan]) -> None:
    """torchvision's RandomChoice of three, of which the blur draws its radius as DeiT III's `augment.py` does."""
    theirs: list[tuple[str, float]] = []
    choice = RandomChoice(
        [
            lambda _: theirs.append(("Grayscale", 0)),
            lambda _: theirs.append(("Solarize", 128)),
            lambda _: theirs.append(("GaussianBlur", random.uniform(0.1, 2.0))),
        ]
    )
    for _ in range(N):
        choice(None)
    ours = [(plan.ops[0].name, plan.ops[0].value) for plan in deit3_plans]
    same_counts(Counter(name for name, _ in ours), Counter(name for name, _ in theirs))
    radii = ([value for name, value in drawn if name == "GaussianBlur"] for drawn in (ours, theirs))
    same_distribution(*radii)
    assert {drawn for drawn in ours if drawn[0] != "GaussianBlur"} == {("Grayscale", 0), ("Solarize", 128)}


def test_color_jitter_follows_torchvisions(deit3_plans: list[ViewPlan]) -> None:
    """Which factors, in which order, whatever the first op was."""
    jitter = ColorJitter(0.3, 0.3, 0.3)
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    theirs = [jitter.get_params(*ranges) for _ in range(N)]  # order, brightness, contrast, saturation, hue
    orders = [" ".join(JITTER_OPS[i] for i in order.tolist() if i < 3) for order, *_ in theirs]
    firsts = [random.choice(["Grayscale", "Solarize", "GaussianBlur"]) for _ in range(N)]
    same_counts(
        Counter(" ".join(op.name for op in plan.ops) for plan in deit3_plans),
        Counter(f"{first} {order}" for first, order in zip(firsts, orders, strict=True)),
    )
    factors = [{op.name: op.value for op in plan.ops[1:]} for plan in deit3_plans]
    for i, name in enumerate(JITTER_OPS):
        same_distribution([f[name] for f in factors], [drawn[1 + i] for drawn in theirs])
    together = np.corrcoef([[f[name] for f in factors] for name in JITTER_OPS])
    assert np.abs(together - np.eye(3)).max() < 4 / N**0.5


def test_deit3_neither_erases_nor_draws_randaugment(deit3_plans: list[ViewPlan]) -> None:
    assert {(len(plan.ops), plan.erase) for plan in deit3_plans} == {(4, None)}


def test_simple_crops_follow_torchvisions_random_crop() -> None:
    plans = [plan_view(SIMPLE, seed, seed % 7, HEIGHT, WIDTH) for seed in range(N)]
    resized = Resize(SIZE)(Image.new("L", (WIDTH, HEIGHT)))
    padded = Image.new("L", (resized.width + 8, resized.height + 8))
    theirs = [RandomCrop.get_params(padded, (SIZE, SIZE))[:2] for _ in range(N)]
    same_counts(Counter(f"{p.crop.top} {p.crop.left}" for p in plans), Counter(f"{t} {le}" for t, le in theirs))
    assert abs(sum(p.hflip for p in plans) / N - 0.5) < 4 * 0.5 / N**0.5


@given(st.integers(1, 900), st.integers(1, 900), st.integers(16, 400), st.integers(0, 2**64 - 1))
def test_simple_crops_resize_as_torchvision_and_stay_inside(height: int, width: int, size: int, seed: int) -> None:
    assume(max(height, width) < 20 * min(height, width))
    crop = plan_view(dataclasses.replace(SIMPLE, size=size), seed, 0, height, width).crop
    assert (crop.width, crop.height) == Resize(size, interpolation=0)(Image.new("L", (width, height))).size
    assert 0 <= crop.top <= crop.height + 8 - size and 0 <= crop.left <= crop.width + 8 - size


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
