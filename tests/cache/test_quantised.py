"""All logits of a view in 8 or 4 bits: how near they are, and a store of them from stage 1 to stage 2."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray
from hypothesis import given
from hypothesis import strategies as st

from distillcache.cache.quantised import BITS, bytes_of, dequantise, quantise
from distillcache.cache.store import Store
from distillcache.datasets.shards.files import expand
from distillcache.datasets.views import Renderer
from distillcache.inspection.info import info_text
from distillcache.models.teachers import Teacher

from ..conftest import CLASSES, cached, run

STUDENT = ("--model", "deit_tiny_distilled_patch16_224", "--model-kwargs", "img_size=32", "embed_dim=24", "depth=1")


@given(st.sampled_from(BITS), st.integers(1, 40), st.floats(0, 1e4), st.integers(0, 2**32 - 1))
def test_no_logit_is_further_off_than_half_a_step(bits: int, classes: int, spread: float, seed: int) -> None:
    """And the ends of a view's range are exact; a spread of 0 is a view of which all logits are the same."""
    rng = np.random.default_rng(seed)
    logits = (rng.normal(0, 10, (7, 1)) + spread * rng.random((7, classes))).astype(np.float32)
    code, scale, zero = quantise(logits, bits)
    assert code.shape == (7, bytes_of(classes, bits)) and {scale.dtype, zero.dtype} == {np.dtype(np.float32)}
    rounding = 4 * np.spacing(np.abs(logits).max(1, keepdims=True))
    found = dequantise(code, scale, zero, classes)
    assert found.dtype == np.float32 and (np.abs(found - logits) <= scale[:, None] / 2 + rounding).all()
    assert np.array_equal(found.min(1), logits.min(1))
    assert (np.ptp(logits, axis=1) <= (2**bits - 1) * scale * (1 + 1e-6)).all()  # no finer steps would do


def test_of_four_bits_a_byte_holds_two_classes_the_first_of_them_low() -> None:
    logits = np.array([[0, 15, 3], [-1, -1, -1]], np.float32)
    code, scale, zero = quantise(logits, 4)
    assert code.tolist() == [[15 << 4, 3], [0, 0]] and scale.tolist() == [1, 0] and zero.tolist() == [0, -1]
    assert np.array_equal(dequantise(code, scale, zero, 3), logits)


@pytest.fixture(scope="module")
def made(shards: str, teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Store]:
    """Stores that keep all logits, by bits. Not to be written to."""
    folder = tmp_path_factory.mktemp("quantised")
    return {bits: cached(folder / f"{bits}.zarr", expand(shards), teacher, logits=bits) for bits in BITS}


@pytest.mark.parametrize("bits", BITS)
def test_a_store_keeps_the_teachers_logits(made: dict[int, Store], shards: str, teacher: Teacher, bits: int) -> None:
    store = made[bits]
    rows = store.order().unit(1, range(3, 6))
    logits = teacher.logits(Renderer(store.manifest.recipe, store.samples(expand(shards)))(rows).images).numpy()
    kept, at = store.cycle(1, soft=True), (rows.view - 3, 1, rows.sample)
    scale = kept.logit_scale[at]
    found = dequantise(kept.logit_code[at], scale, kept.logit_zero[at], CLASSES)
    assert (np.abs(found - logits) <= 0.501 * scale[:, None] + 1e-4).all()
    assert np.allclose(scale, np.ptp(logits, axis=1) / (2**bits - 1), rtol=1e-3)
    assert store.cycle(1).logit_code is None
    assert f"logits   of all {CLASSES} classes, in {bits} bits" in info_text(store)


@pytest.mark.parametrize(("bits", "last"), [(8, ("class", CLASSES)), (4, ("byte", 3))])
def test_it_opens_in_xarray(made: dict[int, Store], bits: int, last: tuple[str, int]) -> None:
    dataset = xarray.open_zarr(made[bits].path, consolidated=False)
    assert dict(dataset.logit_code.sizes) == {"view": 6, "shard": 2, "sample": 12, last[0]: last[1]}
    assert dataset.logit_code.dtype == "uint8"
    for name in ("logit_scale", "logit_zero"):
        assert dataset[name].dims == ("view", "shard", "sample") and dataset[name].dtype == "float32"


def test_extended_and_merged_stores_hold_the_same_codes(
    tmp_path: Path, shards: str, teacher: Teacher, made: dict[int, Store]
) -> None:
    parts = []
    for number, url in enumerate(expand(shards)):
        early = cached(tmp_path / f"{number}.zarr", [url], teacher, views=3, logits=4).read(range(3), 0)
        parts.append(cached(tmp_path / f"{number}.zarr", [url], teacher, views=6, logits=4))
        assert np.array_equal(parts[-1].read(range(3), 0).logit_code, early.logit_code)
    done = run("inspect", "merge", tmp_path / "all.zarr", *(part.path for part in parts))
    assert done.exit_code == 0, done.output
    merged = Store(tmp_path / "all.zarr")
    for number, part in enumerate(parts):
        ours, theirs, count = merged.read(range(6), number), part.read(range(6), 0), int(part.counts[0])
        for name in merged.by_view:
            assert np.array_equal(getattr(ours, name)[:, :count], getattr(theirs, name)[:, :count]), name
    other = run("inspect", "merge", tmp_path / "no.zarr", parts[0].path, made[8].path)
    assert other.exit_code == 2 and "logits: expected stores made alike, found 4 in" in other.output


def test_a_lost_chunk_of_it_is_named(tmp_path: Path, made: dict[int, Store], shards: str) -> None:
    lost = Path(shutil.copytree(made[8].path, tmp_path / "lost.zarr"))
    (lost / "logit_scale/c/0/1/0").unlink()
    for command in (("inspect", "verify", lost), ("train-student", "--cache", lost, "--out", tmp_path / "out")):
        soft = ("--distill", "soft", "--batch-size", 8, "--epochs", 1, *STUDENT) if command[0] != "inspect" else ()
        found = run(*command, "--shards", shards, *soft)
        assert found.exit_code and "chunk logit_scale/c/0/1/0, found none; remove" in found.output, found.output


def test_a_training_run_goes_on_only_from_the_store_it_began_with(made: dict[int, Store], store: Store) -> None:
    assert len({made[8].manifest.fingerprint, made[4].manifest.fingerprint, store.manifest.fingerprint}) == 3


@pytest.mark.parametrize("bits", BITS)
def test_label_and_export_show_the_likeliest_the_label_first(made: dict[int, Store], tmp_path: Path, bits: int) -> None:
    import json

    import pandas

    labels = json.loads(run("inspect", "label", made[bits].path, "photo104", "--json").output)
    for view in labels["views"]:
        numbers, shares = [top[0] for top in view["topk"]], [top[2] for top in view["topk"]]
        assert numbers[0] == view["label"] and sorted(numbers) == list(range(CLASSES))
        assert sum(shares) == pytest.approx(1, abs=1e-5) and shares == sorted(shares, reverse=True)
    done = run("inspect", "export", made[bits].path, tmp_path / "l.parquet", "--key", "photo104")
    assert done.exit_code == 0, done.output
    frame = pandas.read_parquet(tmp_path / "l.parquet")
    assert [list(row) for row in frame["topk_class"]] == [[top[0] for top in v["topk"]] for v in labels["views"]]
