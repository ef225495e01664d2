"""Golden vectors: words, seeds, pairs, plans and checks of whole views, pinned for ever.

A store is only as good as these: a change here makes every store in the world wrong. After a change that is meant (and
a new recipe version) write the file anew with `python tests/datasets/test_golden.py`.
"""

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distillcache.datasets.augment import pixels
from distillcache.datasets.augment.kernels import UInt8Image
from distillcache.datasets.augment.philox import Stream, words
from distillcache.datasets.augment.plans import RANDAUGMENT_OPS, THREE_AUGMENT_OPS, Op, ViewPlan, plan_mix, plan_view
from distillcache.datasets.augment.recipes import Recipe, named
from distillcache.datasets.order import Order, sample_seeds

GOLDEN = Path(__file__).with_name("golden.json")
PAIRS = ["group=2"]  # as all recipes were before there were groups
RECIPES = {name: named(name, overrides=PAIRS) for name in ("deit", "deit3", "crop")}
RECIPES["none"] = dataclasses.replace(named("none"), version=1)
SIMPLE = named("deit3", overrides=["crop=simple", *PAIRS])
ADDED = {"none, version 2": named("none"), "crop=padded": named("deit", overrides=["crop=padded", *PAIRS])}
OPS = tuple(dict.fromkeys(RANDAUGMENT_OPS + THREE_AUGMENT_OPS))


def picture(height: int = 150, width: int = 200) -> torch.Tensor:
    """Return a decoded PNG with edges, gradients and texture, made of integers only."""
    y, x, c = np.ogrid[:height, :width, :3]
    values = (x * (3 + c) + y * (5 - c) + (x * y // 7) % (31 + 8 * c) + 60 * ((x // 20 + y // 15) % 2)) % 256
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(buffer, "PNG")
    return pixels.decode(buffer.getvalue())


def one_op(plan: ViewPlan, name: str) -> ViewPlan:
    values = {"Rotate": 17.5, "ShearX": 0.25, "ShearY": -0.125, "TranslateX": 20.75, "TranslateY": -31.5}
    value = values.get(name, {"Posterize": 2, "Solarize": 100, "SolarizeAdd": 60}.get(name, 1.75))
    return dataclasses.replace(plan, ops=(Op(name=name, value=value),), erase=None)


def added(recipe: Recipe, image: UInt8Image) -> dict[str, Any]:
    plans = [plan_view(recipe, 2**63 + 5, v, 150, 200) for v in range(12)]
    return {
        "fingerprint": recipe.fingerprint,
        "plans": [dataclasses.asdict(plan) for plan in plans],
        "checks": [pixels.check(pixels.render(plan, image)) for plan in plans],
    }


def groups_of_four() -> dict[str, Any]:
    """The recipes' fingerprints, and who is mixed with whom: of 11 samples the last group has one that is alone."""
    deit = named("deit")
    order = Order(seed=42, shards=["train-000000.tar", "b.tar"], samples=[11, 6], recipe=deit)
    epoch = order.epoch(4)
    return {
        "fingerprints": {name: named(name).fingerprint for name in ("deit", "deit3")},
        "groups": order.groups(0, 7).tolist(),
        "partners": order.partners(0, range(21, 24)).tolist(),
        "epoch": np.stack([epoch.shard, epoch.sample, epoch.partner, epoch.view], axis=1).tolist(),
    }


def measure() -> dict[str, Any]:
    image, deit = picture(), RECIPES["deit"]
    plans = {name: [plan_view(recipe, 2**63 + 5, v, 150, 200) for v in range(12)] for name, recipe in RECIPES.items()}
    mixes = [plan_mix(deit, 1000 + v, 2000, v) for v in range(12)]
    whole = {name: [pixels.render(plan, image) for plan in plans[name]] for name in RECIPES}
    simple_plans = [plan_view(SIMPLE, 2**63 + 5, v, 150, 200) for v in range(12)]
    simple = [pixels.render(plan, image) for plan in simple_plans]
    small = [pixels.render(plan_view(named("deit", size=32), 9, v, 150, 200), image) for v in range(12)]
    deit_views = whole["deit"]
    return {
        "words": {s.name: [f"{w:016x}" for w in words(2**64 - 1, s, (1, 2, 3), 5)] for s in Stream},
        "seeds": [f"{seed:016x}" for seed in sample_seeds(42, "train-000000.tar", 5)],
        "pairs": Order(seed=42, shards=["train-000000.tar"], samples=[11], recipe=deit).groups(0, 7).tolist(),
        "epoch": Order(seed=42, shards=["a.tar", "b.tar"], samples=[7, 6], recipe=deit).epoch(4).sample.tolist(),
        "plans": {name: [dataclasses.asdict(plan) for plan in plans[name]] for name in RECIPES},
        "plans of crop=simple": [dataclasses.asdict(plan) for plan in simple_plans],
        "mixes": [dataclasses.asdict(mix) for mix in mixes],
        "checks": {name: [pixels.check(view) for view in whole[name]] for name in RECIPES},
        "checks of crop=simple": [pixels.check(view) for view in simple],
        "checks at 32 pixels": [pixels.check(view) for view in small],
        "checks of mixes": [pixels.check(pixels.mix(m, deit_views[i], deit_views[i - 1])) for i, m in enumerate(mixes)],
        "checks of ops": {name: pixels.check(pixels.render(one_op(plans["deit"][0], name), image)) for name in OPS},
        "fingerprints": {name: recipe.fingerprint for name, recipe in RECIPES.items()},
        "fingerprint of crop=simple": SIMPLE.fingerprint,
        **{name: added(recipe, image) for name, recipe in ADDED.items()},
        "groups of four": groups_of_four(),
    }


def test_golden_vectors_stand() -> None:
    golden, measured = json.loads(GOLDEN.read_text()), json.loads(json.dumps(measure()))
    assert list(measured) == list(golden)
    for name in golden:
        assert measured[name] == golden[name], name


@pytest.mark.parametrize(
    "limits",
    [
        {"ATEN_CPU_CAPABILITY": "avx2", "OPENCV_CPU_DISABLE": "AVX512-SKX", "ONEDNN_MAX_CPU_ISA": "AVX2"},
        {"ATEN_CPU_CAPABILITY": "default", "OPENCV_IPP": "disabled", "OMP_NUM_THREADS": "1"},
        {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_BOUNDSCHECK": "1"},
        {"ATEN_CPU_CAPABILITY": "avx512", "OMP_NUM_THREADS": "3"},
    ],
    ids=lambda limits: " ".join(f"{k}={v}" for k, v in limits.items()),
)
def test_golden_vectors_stand_on_other_cpus(limits: dict[str, str], tmp_path: Path) -> None:
    """The same bytes in processes that are told to do without what this CPU has, or to check every index."""
    if "NUMBA_BOUNDSCHECK" in limits:
        limits["NUMBA_CACHE_DIR"] = str(tmp_path)
    if "avx512" in limits.values() and "avx512" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("SKIPPED: this CPU has no AVX-512")
    done = subprocess.run([sys.executable, __file__, "-"], env={**os.environ, **limits}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(GOLDEN.read_text())


if __name__ == "__main__":
    text = json.dumps(measure(), indent=1) + "\n"
    print(text) if sys.argv[1:] == ["-"] else GOLDEN.write_text(text)
