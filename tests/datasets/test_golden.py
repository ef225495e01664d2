"""Golden vectors: words, seeds, pairs, plans and checks of whole views, pinned for ever.

A store is only as good as these: a change here makes every store in the world wrong. After a change that is meant (and
a new recipe version) write the file anew with `python tests/datasets/test_golden.py`.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distillcache.datasets.augment import evidence, ops
from distillcache.datasets.augment.evidence import (
    GOLDEN,
    RECIPES,
    SIMPLE,
    VIEWS,
    checks_here,
    checks_of,
    differing,
    picture,
    plans_of,
)
from distillcache.datasets.augment.kernels import UInt8Image
from distillcache.datasets.augment.philox import Stream, words
from distillcache.datasets.augment.plans import plan_mix
from distillcache.datasets.augment.recipes import Recipe, named
from distillcache.datasets.order import Order, sample_seeds

ADDED = {"none, version 2": named("none"), "crop=padded": named("deit", overrides=["crop=padded", "group=2"])}


def added(recipe: Recipe, image: UInt8Image) -> dict[str, Any]:
    plans = [dataclasses.asdict(plan) for plan in plans_of(recipe)]
    return {"fingerprint": recipe.fingerprint, "plans": plans, "checks": checks_of(recipe, image)}


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
    deit, jpegs = RECIPES["deit"], json.loads(GOLDEN.read_text())["jpegs"]
    mixes = [plan_mix(deit, 1000 + view, 2000, view) for view in range(VIEWS)]
    *before, of_jpegs = checks_here(jpegs).items()
    return {
        "words": {s.name: [f"{w:016x}" for w in words(2**64 - 1, s, (1, 2, 3), 5)] for s in Stream},
        "seeds": [f"{seed:016x}" for seed in sample_seeds(42, "train-000000.tar", 5)],
        "pairs": Order(seed=42, shards=["train-000000.tar"], samples=[11], recipe=deit).groups(0, 7).tolist(),
        "epoch": Order(seed=42, shards=["a.tar", "b.tar"], samples=[7, 6], recipe=deit).epoch(4).sample.tolist(),
        "plans": {name: [dataclasses.asdict(plan) for plan in plans_of(recipe)] for name, recipe in RECIPES.items()},
        "plans of crop=simple": [dataclasses.asdict(plan) for plan in plans_of(SIMPLE)],
        "mixes": [dataclasses.asdict(mix) for mix in mixes],
        **dict(before),
        "fingerprints": {name: recipe.fingerprint for name, recipe in RECIPES.items()},
        "fingerprint of crop=simple": SIMPLE.fingerprint,
        **{name: added(recipe, picture()) for name, recipe in ADDED.items()},
        "groups of four": groups_of_four(),
        "jpegs": jpegs,
        **dict([of_jpegs]),
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


def test_evidence_is_found_out_once_and_names_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    differing.cache_clear()
    assert differing() == ()
    [kept] = (tmp_path / "distillcache" / "exact").iterdir()
    assert json.loads(kept.read_text()) == []
    original = ops.OPS["Rotate"]
    monkeypatch.setitem(ops.OPS, "Rotate", lambda image, value: original(image, value) ^ 1)
    differing.cache_clear()
    assert differing() == ()  # remembered
    monkeypatch.setattr(evidence, "_here", lambda: ["another CPU"])
    differing.cache_clear()
    assert "ops (Rotate)" in differing()
    differing.cache_clear()


if __name__ == "__main__":
    text = json.dumps(measure(), indent=1) + "\n"
    print(text) if sys.argv[1:] == ["-"] else GOLDEN.write_text(text)
