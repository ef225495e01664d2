"""Whether this machine makes the bytes that all others do: the golden vectors, made again here and remembered."""

import base64
import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from ...runtime import atomic
from ...runtime.paths import user_cache
from . import pixels
from .kernels import UInt8Image
from .libraries import library_versions
from .plans import RANDAUGMENT_OPS, THREE_AUGMENT_OPS, Op, ViewPlan, plan_mix, plan_view
from .recipes import Recipe, named

GOLDEN = Path(__file__).with_name("golden.json")
"""Words, plans and checks, pinned for ever; here only its checks are made again, tests make all of it."""
VIEWS, SEED = 12, 2**63 + 5
_PAIRS = ["group=2"]  # as all recipes were before there were groups
RECIPES = {name: named(name, overrides=_PAIRS) for name in ("deit", "deit3", "crop")}
RECIPES["none"] = dataclasses.replace(named("none"), version=1)
SIMPLE = named("deit3", overrides=["crop=simple", *_PAIRS])
_OPS = tuple(dict.fromkeys(RANDAUGMENT_OPS + THREE_AUGMENT_OPS))
_VALUES = {"Rotate": 17.5, "ShearX": 0.25, "ShearY": -0.125, "TranslateX": 20.75, "TranslateY": -31.5}
_VALUES |= {"Posterize": 2, "Solarize": 100, "SolarizeAdd": 60}


@functools.cache
def differing() -> tuple[str, ...]:
    """Return which golden vectors come out otherwise here, in words; nothing where every view is exact.

    That is found out once for each combination of libraries and CPU, in less than a second, and kept in the user's
    cache folder.
    """
    kept = user_cache() / "exact" / f"{hashlib.sha256(json.dumps(_here()).encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError):
        return tuple(json.loads(kept.read_text()))
    golden = json.loads(GOLDEN.read_text())
    found = [words for name, checks in checks_here(golden["jpegs"]).items() if (words := _apart(name, checks, golden))]
    with contextlib.suppress(OSError):  # a folder that can't be written: found out again next time
        kept.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(kept, json.dumps(found))
    return tuple(found)


def _apart(name: str, found: Any, golden: Mapping[str, Any]) -> str:
    """Return in words what of some checks is not as it is pinned."""
    pinned, name = golden[name], name.removeprefix("checks of ").replace("checks", "views")
    if isinstance(pinned, dict):
        apart = [key for key in pinned if found[key] != pinned[key]]
        return f"{name} ({', '.join(apart)})" if apart else ""
    return name if found != pinned else ""


def _here() -> list[object]:
    """Return what decides the bytes: the vectors, the libraries, and the CPU as they see it."""
    import llvmlite.binding

    cpu = [platform.machine(), torch.backends.cpu.get_cpu_capability(), cv2.getCPUFeaturesLine()]
    numba = [llvmlite.binding.get_host_cpu_name(), sorted(llvmlite.binding.get_host_cpu_features().items())]
    return [hashlib.sha256(GOLDEN.read_bytes()).hexdigest(), library_versions(), cpu, numba]


def picture(height: int = 150, width: int = 200) -> UInt8Image:
    """Return a decoded PNG with edges, gradients and texture, made of integers only."""
    y, x, c = np.ogrid[:height, :width, :3]
    values = (x * (3 + c) + y * (5 - c) + (x * y // 7) % (31 + 8 * c) + 60 * ((x // 20 + y // 15) % 2)) % 256
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(buffer, "PNG")
    return pixels.decode(buffer.getvalue())


def plans_of(recipe: Recipe) -> list[ViewPlan]:
    """Return the plans of the first views of a sample that looks like `picture`."""
    return [plan_view(recipe, SEED, view, 150, 200) for view in range(VIEWS)]


def checks_of(recipe: Recipe, image: UInt8Image) -> list[int]:
    """Return the checks of those views."""
    return [pixels.check(pixels.render(plan, image)) for plan in plans_of(recipe)]


def checks_here(jpegs: Mapping[str, str]) -> dict[str, Any]:
    """Return by name the checks of whole views of every recipe, of mixes and of every op, and of decoded `jpegs`."""
    image, deit = picture(), RECIPES["deit"]
    views = [pixels.render(plan, image) for plan in plans_of(deit)]
    mixes = [plan_mix(deit, 1000 + view, 2000, view) for view in range(VIEWS)]
    small = [pixels.render(plan_view(named("deit", size=32), 9, view, 150, 200), image) for view in range(VIEWS)]
    first = plans_of(deit)[0]
    return {
        "checks": {name: checks_of(recipe, image) for name, recipe in RECIPES.items()},
        "checks of crop=simple": checks_of(SIMPLE, image),
        "checks at 32 pixels": [pixels.check(view) for view in small],
        "checks of mixes": [pixels.check(pixels.mix(m, views[i], views[i - 1])) for i, m in enumerate(mixes)],
        "checks of ops": {name: pixels.check(pixels.render(_one_op(first, name), image)) for name in _OPS},
        "checks of jpegs": {name: pixels.check(pixels.decode(base64.b64decode(jpeg))) for name, jpeg in jpegs.items()},
    }


def _one_op(plan: ViewPlan, name: str) -> ViewPlan:
    return dataclasses.replace(plan, ops=(Op(name=name, value=_VALUES.get(name, 1.75)),), erase=None)
