"""Order, mixing and augmentation as distributions: ours, beside `published_views`."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from comparison import Comparison, Row, distributions, pixels, share, shares, worst

from distillcache.datasets.augment import pixels as renderer
from distillcache.datasets.augment.pixels import IMAGENET_MEAN, IMAGENET_STD
from distillcache.datasets.augment.plans import (
    RANDAUGMENT_OPS,
    Box,
    Erase,
    MixPlan,
    SimpleCrop,
    ViewPlan,
    Window,
    plan_mix,
    plan_view,
)
from distillcache.datasets.augment.recipes import named
from distillcache.datasets.order import Order, Rows

DEIT = named("deit")
SIZE = DEIT.size
N = 100_000
HEIGHT, WIDTH = 375, 500
IMAGES, EPOCHS, PROCESSES, BATCH = 4000, 300, 8, 64
IMAGENET, LARGE_BATCH = 1_281_167, 1024
SHARDS = 8


def order() -> Comparison:
    """Compare repeated augmentation: steps an epoch, views an image, epochs in which it is shown, partners."""
    ours, large = ordered(IMAGES, SHARDS), ordered(IMAGENET, 1024)

    def rows(theirs: dict[str, Any]) -> list[Row]:
        published, first = theirs["sampler"], ours.epoch(0)
        views = np.bincount(np.bincount(images_of(first)), minlength=4)
        steps_of_large = len(large.epoch(0)) // LARGE_BATCH
        steps = (
            f"steps an epoch, {IMAGENET:,} images, batch {LARGE_BATCH}",
            f"steps an epoch, {IMAGES:,} images, batch {BATCH}",
        )
        return [
            counted(steps[0], steps_of_large, published["steps_of_large"]),
            counted(steps[1], len(first) // BATCH, published["steps"], at_most=2),
            counted(
                "views of an image in an epoch",
                *(int(n[1:].argmax()) + 1 for n in (views, published["views"].bincount())),
            ),
            spread(f"epochs of {EPOCHS} that show an image", shown(ours), published["shown"].numpy()),
            partners(first, published["partners"]),
        ]

    asked = {
        "images": IMAGES,
        "epochs": EPOCHS,
        "processes": PROCESSES,
        "batch": BATCH,
        "large": [IMAGENET, LARGE_BATCH],
    }
    return Comparison(name="sampler", ask={"sampler": asked}, rows=rows)


def ordered(images: int, shards: int) -> Order:
    """Return the order of some images in shards of equal sizes, but for one."""
    samples = [(i + 1) * images // shards - i * images // shards for i in range(shards)]
    return Order(seed=0, shards=[f"{i}.tar" for i in range(shards)], samples=samples, recipe=DEIT)


def images_of(rows: Rows) -> np.ndarray:
    return rows.shard * (IMAGES // SHARDS) + rows.sample


def shown(order: Order) -> np.ndarray:
    """Return in how many epochs each image is shown."""
    steps = [images_of(order.epoch(epoch)) for epoch in range(EPOCHS)]
    return sum(np.bincount(images[: len(images) // BATCH * BATCH], minlength=IMAGES) > 0 for images in steps)


def partners(rows: Rows, theirs: torch.Tensor) -> Row:
    """Compare how many partners an image's three views have."""
    by_image: dict[int, set[int]] = {}
    for image, partner in zip(images_of(rows).tolist(), rows.partner.tolist(), strict=True):
        by_image.setdefault(image, set()).add(partner)
    counts = np.bincount([len(found) for found in by_image.values()], minlength=4), theirs.bincount(minlength=4).numpy()
    ours, published = (count[1:4] / count[1:4].sum() for count in counts)
    return Row(
        what=f"1, 2 or 3 partners of an image's views, batch {LARGE_BATCH} on {PROCESSES}",
        ours=", ".join(f"{share:.0%}" for share in ours),
        theirs=", ".join(f"{share:.0%}" for share in published),
        difference=float(np.abs(ours - published).max()),
        at_most=0.95,
        said=True,
    )


def counted(what: str, ours: int, theirs: int, *, at_most: float = 0) -> Row:
    return Row(
        what=what,
        ours=f"{ours:,}",
        theirs=f"{theirs:,}",
        difference=abs(ours - theirs),
        at_most=at_most,
        said=at_most > 0,
    )


def spread(what: str, ours: np.ndarray, theirs: np.ndarray) -> Row:
    texts = (f"{values.mean():.1f} +- {values.std():.1f}" for values in (ours, theirs))
    difference = abs(ours.mean() - theirs.mean())
    return Row(
        what=what, **dict(zip(("ours", "theirs"), texts, strict=True)), difference=difference, at_most=5, said=True
    )


def mixing() -> Comparison:
    """Compare kind, lambda and boxes of mixes, and what a mix does to pixels."""
    torch.manual_seed(0)
    images = torch.randint(256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    lams = [round(lam * 65536) / 65536 for lam in (0.1, 0.3777, 0.9)]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))

    def rows(theirs: dict[str, Any]) -> list[Row]:
        published = {name: np.asarray(values) for name, values in theirs["mixing"].items()}
        plans = [plan_mix(DEIT, 2 * i, 2 * i + 1, 0) for i in range(N)]
        cut, cuts = [p for p in plans if p.kind == "cutmix"], published["cutmix"] > 0
        compared = [
            share("share of cutmix", len(cut), int(cuts.sum()), N),
            distributions("lambda of mixup", [p.lam for p in plans if p.kind == "mixup"], published["lam"][~cuts]),
            distributions("lambda of cutmix", [p.lam for p in cut], published["lam"][cuts], at_most=0.02),
        ]
        for side in ("height", "width", "top", "left"):
            ours = [getattr(p.box, side) for p in cut]
            compared.append(distributions(f"cutmix, {side} of the box", ours, published[side][cuts], at_most=0.02))
        lambdas = len({max(p.lam, 1 - p.lam) for p in plans[: BATCH // 2]})
        compared.append(
            counted(f"lambdas in a batch of {BATCH}", lambdas, int(published["lambdas"]), at_most=BATCH // 2)
        )
        off = max(level_difference(lam, m) for lam, m in zip(lams, theirs["mixed"], strict=True))
        return [*compared, Row(what="mixup's pixels", difference=off, unit=" levels", at_most=0.501, said=True)]

    def level_difference(lam: float, published: torch.Tensor) -> float:
        """Return by how many levels of 255 the first of two mixed images is off at most."""
        ours = renderer.mix(MixPlan(kind="mixup", lam=lam, box=None), images[0].numpy(), images[1].numpy())
        return float((torch.from_numpy(ours).permute(2, 0, 1) - (published[0] * std + mean) * 255).abs().max())

    normalised = (images.permute(0, 3, 1, 2) / 255 - mean) / std
    asked = {"n": N, "size": SIZE, "batch": BATCH}
    return Comparison(name="mixing", ask={"mixing": asked, "mixed": {"images": normalised, "lams": lams}}, rows=rows)


def transforms() -> Comparison:
    """Compare what the training transform draws: crops, flips, ops with their arguments, erased boxes."""

    def rows(theirs: dict[str, Any]) -> list[Row]:
        published = {name: np.asarray(values) for name, values in theirs["transforms"].items()}
        plans = [plan_view(DEIT, seed, seed % 7, HEIGHT, WIDTH) for seed in range(N)]
        boxes = [plan.erase.box for plan in plans if plan.erase]
        erased = published["erased"]
        return [
            *of_boxes("crop", [plan.crop for plan in plans], published["crops"]),
            share("share of flips", sum(plan.hflip for plan in plans), int(published["flips"]), N),
            *of_ops(plans, published),
            share("share that is erased", len(boxes), len(erased), N),
            *of_boxes("erased box", boxes, erased),
            noise(published["noise"]),
        ]

    asked = {"n": N, "size": SIZE, "height": HEIGHT, "width": WIDTH}
    return Comparison(name="transforms", ask={"transforms": asked}, rows=rows)


def small() -> Comparison:
    """Compare what is otherwise at 32 pixels: a crop out of the padded image, and the whole image in evaluation."""
    torch.manual_seed(0)
    recipe, whole = named("deit", size=32, overrides=["crop=padded"]), named("none", size=32, overrides=["crop_pct=1"])
    image = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8)

    def rows(theirs: dict[str, Any]) -> list[Row]:
        published = theirs["small"]
        crops = [plan_view(recipe, seed, 0, 32, 32).crop for seed in range(N)]
        corners = np.array([(crop.top + 4, crop.left + 4) for crop in crops])
        views = [cut(replace(crops[0], top=top - 4, left=left - 4)) for top in range(9) for left in range(9)]
        return [
            *(
                distributions(f"crop, {side}", corners[:, i], published["corners"][:, i].numpy())
                for i, side in enumerate(("top", "left"))
            ),
            pixels("all 81 crops of an image", torch.stack(views), published["crops"], at_most=0),
            pixels("image in evaluation", cut(plan_view(whole, 0, 0, 32, 32).crop), published["evaluated"], at_most=0),
        ]

    def cut(crop: Box | SimpleCrop | Window) -> torch.Tensor:
        plan = ViewPlan(size=32, crop=crop, hflip=False, ops=(), erase=None)
        return torch.from_numpy(renderer.render(plan, image.numpy()))

    return Comparison(name="at 32 pixels", ask={"small": {"n": N, "image": image}}, rows=rows)


def of_boxes(what: str, ours: list[Box], theirs: np.ndarray) -> list[Row]:
    """Compare boxes with theirs, (n, 4): top, left, height, width."""
    a = np.array([(box.top, box.left, box.height, box.width) for box in ours])
    return [
        distributions(f"{what}, {measure}", of(*a.T), of(*theirs.T))
        for measure, of in (
            ("area", lambda top, left, height, width: height * width),
            ("width over height", lambda top, left, height, width: width / height),
            ("top", lambda top, left, height, width: top),
            ("left", lambda top, left, height, width: left),
        )
    ]


def of_ops(plans: list[ViewPlan], theirs: dict[str, np.ndarray]) -> list[Row]:
    """Compare how many ops a view has, which, and of the 15 the argument that differs most."""
    number = np.array([RANDAUGMENT_OPS.index(op.name) for plan in plans for op in plan.ops])
    value = np.array([op.value for plan in plans for op in plan.ops])
    a_view = [np.bincount(n, minlength=3).tolist() for n in ([len(plan.ops) for plan in plans], theirs["ops_a_view"])]
    chosen = [np.bincount(n, minlength=len(RANDAUGMENT_OPS)).tolist() for n in (number, theirs["ops"])]
    arguments = [
        distributions(f"argument of {name}", value[number == i], theirs["values"][theirs["ops"] == i])
        for i, name in enumerate(RANDAUGMENT_OPS)
    ]
    return [
        shares("ops a view, share", a_view[0], a_view[1], ("none", "one", "two")),
        shares("op that is chosen, share", *chosen, RANDAUGMENT_OPS),
        worst(arguments),
    ]


def noise(theirs: np.ndarray) -> Row:
    """Compare the standard deviation of what erases, where images are normalised."""
    plan = Erase(box=Box(top=0, left=0, height=SIZE, width=SIZE), seed=7, view=0)
    view = ViewPlan(size=SIZE, crop=plan.box, hflip=False, ops=(), erase=plan)
    levels = renderer.render(view, np.zeros((SIZE, SIZE, 3), np.uint8))
    ours = (levels / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    a, b = float(ours.std()), float(theirs.std())
    return Row(
        what="standard deviation of erasing noise",
        ours=f"{a:.3f}",
        theirs=f"{b:.3f}",
        difference=abs(a - b),
        at_most=0.05,
        said=True,
    )
