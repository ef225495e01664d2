"""Looking into stores: what is counted is what is there, and what is drawn is what the teacher saw."""

import csv
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas
import polars
import pytest
import webdataset
import zarr
from PIL import Image

from distillcache.cache.store import Store
from distillcache.datasets.augment import pixels
from distillcache.datasets.shards.files import expand
from distillcache.inspection.lookup import find, label
from distillcache.inspection.pictures import planned, rendered, stages
from distillcache.models.loading import load_teacher
from distillcache.models.teachers import Teacher

from ..conftest import cached, run


def json_of(*arguments: object) -> Any:
    found = run("inspect", *arguments, "--json")
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


@pytest.fixture(scope="module")
def every_view(store: Store) -> list[tuple[str, str, int, Any]]:
    """Shard, key, target and label of every view, by the one command that tests/test_cli.py proves."""
    samples = [label(store, (shard, i)) for shard in range(2) for i in range(store.counts[shard])]
    return [(s.shard, s.key, s.target, view) for s in samples for view in s.views]


def test_info_says_what_is_missing_and_what_fills_it(tmp_path: Path, store: Store, shards: str) -> None:
    copy = Path(shutil.copytree(store.path, tmp_path / "c.zarr"))
    facts = json_of("info", copy)
    assert facts["complete"] and facts["fill_with"] is None and facts["shards_by_block"] == [2]
    (copy / "label/c/0/1/0").unlink()
    facts = json_of("info", copy)
    assert facts["views_by_shard"] == {"train-0.tar": 6, "train-1.tar": 0} and facts["shards_by_block"] == [1]
    assert "views 0 to 5: 1 of 2 shards are done" in run("inspect", "info", copy).stdout
    command = facts["fill_with"].replace("'train-{0..1}.tar'", shards).split()[1:]
    assert run(*command, "--device", "cpu").exit_code == 0 and json_of("info", copy)["complete"]


def test_keys_are_filtered(store: Store, every_view: Any) -> None:
    assert [row["key"] for row in json_of("keys", store.path)] == [*store.keys(0), *store.keys(1)]
    some = json_of("keys", store.path, "--key", "photo0*", "--class", "2", "--class", "class 4", "--shard", "train-0*")
    assert some and {row["target"] for row in some} == {2, 4} and {row["shard"] for row in some} == {"train-0.tar"}
    doubted = json_of("keys", store.path, "--agreement-below", 0.3)
    agree = Counter(key for _, key, _, view in every_view if view.agrees)
    assert {row["key"]: row["agreement"] for row in doubted} == {
        key: pytest.approx(agree[key] / 6) for key in [*store.keys(0), *store.keys(1)] if agree[key] / 6 < 0.3
    }
    assert [row["agreement"] for row in doubted] == sorted(row["agreement"] for row in doubted)
    assert len(json_of("keys", store.path, "--limit", 3)) == 3
    for option, value, message in (("--key", "n*", "key: expected"), ("--class", "dog", "class: expected a number")):
        refused = run("inspect", "keys", store.path, option, value)
        assert refused.exit_code == 2 and message in refused.stderr


def test_stats_are_those_of_a_count_by_hand(store: Store, every_view: Any, tmp_path: Path) -> None:
    found = json_of("stats", store.path, "--plot", tmp_path / "s.png")
    assert Image.open(tmp_path / "s.png").width > 1000
    n = len(every_view)
    partners = [view for *_, view in every_view if view.relation == "partner"]
    assert (found["samples"], found["views"]) == (23, n)
    assert found["agreement"] == pytest.approx(sum(view.agrees for *_, view in every_view) / n)
    assert found["partner"] == pytest.approx(len(partners) / n)
    for number, share in enumerate(found["by_view"]):
        assert share == pytest.approx(np.mean([view.agrees for *_, view in every_view if view.view == number]))
    for group in found["by_mix"]:
        same = [view for *_, view in every_view if view.mix == group["kind"]]
        assert group["views"] == len(same) and group["agreement"] == pytest.approx(np.mean([v.agrees for v in same]))
    for group in found["by_lambda"]:
        low, high = group["low"], group["high"] + (group["high"] == 1)
        same = [v for *_, v in every_view if v.mix == group["kind"] and low <= v.lam < high]
        assert group["views"] == len(same)
        assert group["partner"] == pytest.approx(sum(v in partners for v in same) / len(same))
    for one in found["by_class"]:
        own = [view for _, _, target, view in every_view if target == one["number"]]
        assert (one["views"], one["agreement"]) == (len(own), pytest.approx(np.mean([view.agrees for view in own])))
        assert one["labels"] == sum(view.label == one["number"] for *_, view in every_view)
    confused = Counter((target, v.label) for _, _, target, v in every_view if v.relation == "neither")
    assert {(c["target"], c["label"]): c["views"] for c in found["confusions"]} == dict(confused)
    by_sample: dict[str, Counter[int]] = {}
    for _, key, _, view in every_view:
        by_sample.setdefault(key, Counter())[view.label] += 1
    entropies = [-sum(c / 6 * math.log2(c / 6) for c in said.values()) for said in by_sample.values()]
    assert found["entropy"] == pytest.approx(np.mean(entropies))
    histogram = np.histogram(np.minimum(entropies, most := math.log2(5)), 10, (0, most))[0]  # of 5 classes in 6 views
    assert found["entropy_histogram"] == histogram.tolist() and histogram.sum() == 23
    targets = {key: target for _, key, target, _ in every_view}
    never = {key: said for key, said in by_sample.items() if not said[targets[key]]}
    assert found["never"] == len(never) and {d["key"] for d in found["never_agreed"]} == set(never)
    for doubt in found["never_agreed"]:
        assert never[doubt["key"]][doubt["label"]] == max(never[doubt["key"]].values()) == round(6 * doubt["share"])


def test_counts_of_parts_add_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As processes count them, of a store with many shards."""
    at_once = json_of("stats", store.path)
    monkeypatch.setattr("distillcache.inspection.stats._AT_ONCE", 1)
    in_parts = json_of("stats", store.path)
    assert in_parts.pop("entropy") == pytest.approx(at_once.pop("entropy")) and in_parts == at_once


def test_the_last_step_of_a_view_is_the_view(store: Store, shards: str, tmp_path: Path) -> None:
    samples, place = store.samples(expand(shards)), find(store, "photo003")
    views = rendered(store, place, samples, range(6))
    for own, view in zip(planned(store, place, samples, range(6)), views, strict=True):
        steps = stages(own)
        assert len(steps) == 1 + own.plan.hflip + len(own.plan.ops) + bool(own.plan.erase)
        other = pixels.render(own.partner.plan, own.partner.image) if own.partner else steps[-1][1]
        assert np.array_equal(pixels.mix(own.mix, steps[-1][1], other), view)
    out = tmp_path / "steps.png"
    command = ["inspect", "show", store.path, "photo003", "--shards", shards, "--out", out]
    drawn = run(*command, "--steps", "--plan", "--views", "0:6")
    assert drawn.exit_code == 0 and drawn.stdout.count("crop ") >= 6 and "view 5: " in drawn.stdout
    assert Image.open(out).height == 6 * (160 + 2 * 14 + 2 * 8) + 8
    refused = run(*command, "--views", "4:9")
    assert refused.exit_code == 2 and "views: expected FIRST:END" in refused.stderr


def test_diff_compares_two_teachers_on_the_same_views(
    tmp_path: Path, store: Store, shards: str, teacher: Teacher, teacher_folder: Path
) -> None:
    sharper = load_teacher(str(teacher_folder), device=teacher.device, amp=False)
    sharper.model.classifier.bias.data[3] += 1
    other = cached(tmp_path / "b.zarr", expand(shards), sharper, views=3)
    found = json_of("diff", store.path, other.path)
    differing, samples = 0, Counter[str]()
    for shard in range(2):
        one, two = (s.read(range(3), shard).label[:, : store.counts[shard]] for s in (store, other))
        differing += int((one != two).sum())
        times = (one != two).sum(axis=0).tolist()
        samples.update({key: n for key, n in zip(store.keys(shard), times, strict=True) if n})
    assert found["views"] == 69 and 0 < found["differing"] == differing == sum(one["views"] for one in found["classes"])
    assert all(one["second"] == 3 for one in found["classes"])
    assert {s["key"]: s["differing"] for s in found["samples"]} == dict(samples)
    assert json_of("diff", store.path, store.path)["differing"] == 0
    another = cached(tmp_path / "c.zarr", expand(shards), teacher, views=3, seed=1)
    refused = run("inspect", "diff", store.path, another.path)
    assert refused.exit_code == 2 and "seed: expected two stores of the same views, found 0 in" in refused.stderr


def chunks(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file() and "/c/" in str(f)}


def test_merged_stores_are_those_made_at_once(tmp_path: Path, store: Store, shards: str, teacher: Teacher) -> None:
    """By shards, and by blocks of views of one shard; what two have must be the same."""
    one, two = expand(shards)
    parts = [cached(tmp_path / f"{i}.zarr", [url], teacher, topk=2) for i, url in enumerate((two, one))]
    found = run("inspect", "merge", tmp_path / "all.zarr", *(part.path for part in parts))
    assert found.exit_code == 0, found.output
    ours, reference = chunks(tmp_path / "all.zarr"), chunks(store.path)
    same = {name for name in reference if not name.startswith(("probe", "topk_logit"))}
    assert {name for name in same if ours.get(name) != reference[name]} == set()
    assert run("inspect", "verify", tmp_path / "all.zarr", "--shards", shards).exit_code == 0

    whole = cached(tmp_path / "whole.zarr", [one], teacher, views=15)
    early, late = (Path(shutil.copytree(whole.path, tmp_path / f"{name}.zarr")) for name in ("early", "late"))
    (early / "label/c/1/0/0").unlink()
    (late / "label/c/0/0/0").unlink()
    assert run("inspect", "merge", tmp_path / "both.zarr", early, late).exit_code == 0
    assert chunks(tmp_path / "both.zarr") == chunks(whole.path)

    few = cached(tmp_path / "few.zarr", [one], teacher, views=3)
    assert run("inspect", "merge", tmp_path / "longer.zarr", few.path, late).exit_code == 0
    longer = Store(tmp_path / "longer.zarr")
    assert [unit.views for unit in longer.units()] == [range(3, 12)]

    label = whole.read(range(12), 0).label
    label[0, 0] = (label[0, 0] + 1) % 5
    zarr.open_group(late)["label"][:12, 0] = label
    reseeded = cached(tmp_path / "s.zarr", [two], teacher, views=3, seed=1).path
    for stores, message in (
        ((whole.path, late), "views 0 to 11: expected the same labels in"),
        ((whole.path, reseeded), "seed: expected stores made alike"),
    ):
        refused = run("inspect", "merge", tmp_path / "no.zarr", *stores)
        assert refused.exit_code == 2 and message in refused.stderr, refused.output
        assert not list(tmp_path.glob("no.zarr*"))
    refused = run("inspect", "merge", whole.path, whole.path)
    assert refused.exit_code == 2 and "expected a path where nothing is yet" in refused.stderr


def test_exports_are_read_by_pandas_polars_duckdb_and_numpy(tmp_path: Path, store: Store, every_view: Any) -> None:
    for name in ("l.parquet", "l.csv", "l.npz"):
        found = run("inspect", "export", store.path, tmp_path / name, "--mixes")
        assert found.exit_code == 0 and "138 rows" in found.stdout, found.output
    frame = pandas.read_parquet(tmp_path / "l.parquet")
    expected = sorted((s, k, t, v.view, v.label, v.agrees, v.partner or "", v.mix, v.lam) for s, k, t, v in every_view)
    columns = ["shard", "key", "target", "view", "label", "agrees", "partner", "mix", "lam"]
    assert sorted(frame[columns].itertuples(index=False, name=None)) == expected
    kinds = frame.dtypes.astype(str).to_dict()
    assert (kinds["target"], kinds["view"], kinds["agrees"], kinds["check"]) == ("int32", "int32", "bool", "uint16")
    assert frame["target_name"].iloc[0] == f"class {frame['target'].iloc[0]}"
    assert polars.read_parquet(tmp_path / "l.parquet")["label"].to_list() == frame["label"].tolist()
    query = f"select avg(agrees::int), any_value(topk_class) from '{tmp_path}/l.parquet'"
    ((share, top),) = duckdb.sql(query).fetchall()
    assert share == pytest.approx(np.mean([view.agrees for *_, view in every_view])) and len(top) == 2
    rows = list(csv.DictReader((tmp_path / "l.csv").open()))
    assert [row["key"] for row in rows] == frame["key"].tolist()
    arrays = np.load(tmp_path / "l.npz")
    assert arrays["label"].tolist() == frame["label"].tolist() and arrays["topk_probability"].shape == (138, 2)
    assert run("inspect", "export", store.path, tmp_path / "some.csv", "--key", "photo003").stdout.endswith("bytes\n")
    assert len(list(csv.DictReader((tmp_path / "some.csv").open()))) == 6
    refused = run("inspect", "export", store.path, tmp_path / "l.xlsx")
    assert refused.exit_code == 2 and "expected a name that ends in .parquet, .csv, .npz" in refused.stderr


def test_a_shard_of_one_sample_is_estimated(tmp_path: Path, photos: list[bytes], teacher_folder: Path) -> None:
    """Fewer views than make a batch, of which the first does not count."""
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as tar:
        tar.write({"__key__": "x", "jpg": photos[0], "cls": 1})
    options = ["--teacher", teacher_folder, "--image-size", 32, "--views", 1, "--recipe", "none", "--device", "cpu"]
    found = json_of("estimate", "--shards", tmp_path / "a.tar", *options, "--seconds", 1)
    assert found["measured_views"] > 0 and found["samples"] == 1


def test_an_estimate_counts_the_logits(shards: str, teacher_folder: Path) -> None:
    options = ["--shards", shards, "--teacher", teacher_folder, "--image-size", 32, "--views", 12, "--device", "cpu"]
    found = json_of("estimate", *options, "--batch-size", 8, "--seconds", 1, "--logits", 8)
    assert found["memory"] == 23 * 3 * (2 + 2 + 5 + 4 + 4)
    assert 10 < found["bytes_per_view"] < 2 * (2 + 2 + 5 + 4 + 4)


def test_an_estimate_is_near_what_stage_1_takes(tmp_path: Path, shards: str, teacher_folder: Path) -> None:
    options = ["--shards", shards, "--teacher", teacher_folder, "--image-size", 32, "--views", 12, "--device", "cpu"]
    found = json_of("estimate", *options, "--batch-size", 8, "--seconds", 15)  # a whole shard, at any speed
    assert found["shards"] == 2 and found["samples"] == 23 and found["measured_views"] >= 8
    assert found["seconds"] == pytest.approx(found["samples"] * 12 / found["views_per_second"])
    assert run("cache-teacher", *options, "--cache", tmp_path / "c.zarr").exit_code == 0
    nbytes = Store(tmp_path / "c.zarr").chunks.nbytes(metadata=False)
    assert found["bytes_per_view"] == pytest.approx((nbytes["label"] + nbytes["check"]) / (23 * 12), rel=0.1)
    assert found["memory"] == 23 * 3 * (2 + 2)
    said = run("inspect", "estimate", *options, "--seconds", 1).stdout
    assert "views/s by" in said and said.startswith("23 samples in 2 shards")


def test_an_estimate_says_from_which_student_on_caching_pays(shards: str, teacher_folder: Path) -> None:
    options = ["--shards", shards, "--teacher", teacher_folder, "--image-size", 32, "--views", 300, "--device", "cpu"]
    given = ["--gpus", 2, "--price", 3.6, "--speed", 0.5, "--teacher-speed", 1, "--student-speed", 0.25]
    found, views = json_of("estimate", *options, *given, "--seconds", 1), 23 * 300
    assert found["stage1_hours"] == pytest.approx(views / 0.5 / 3600 / 2)
    assert found["student_hours"] == pytest.approx(views / 0.25 / 3600 / 2)
    assert found["online_hours"] == pytest.approx(views * (4 + 1) / 3600 / 2)
    assert found["pays_from"] == 3  # what stage 1 takes at half the teacher's speed, two students ask it
    assert found["student_requests"] == 2 * 2 * 25 and found["stage1_requests"] == 1
    said = run("inspect", "estimate", *options, *given, "--seconds", 1).stdout
    assert "115.0 minutes, 13.80 on 2 CPUs like this" in said and "faster from 3 students of it on" in said
