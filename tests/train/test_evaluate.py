"""Fine-tuning, transfer, evaluation and comparison: what is done with a student once it is trained."""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
import torch.nn.functional as F
import webdataset
from timm.data import RealLabelsImagenet

import distillcache as dc
from distillcache.cache.store import Store
from distillcache.datasets.augment.recipes import named
from distillcache.datasets.order import in_sequence
from distillcache.datasets.samples import samples_of
from distillcache.datasets.shards.files import expand
from distillcache.datasets.shards.index import index_shards
from distillcache.datasets.views import Renderer
from distillcache.models.students import Student, build_student
from distillcache.models.teachers import Teacher
from distillcache.train.checkpoint import read_weights

from ..conftest import CLASSES, SIZE, cached, run
from .test_train import KWARGS, MODEL, train


@pytest.fixture(scope="module")
def runs(store: Store, shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two trained students: `distilled`, and `plain` without a distillation token."""
    folder = tmp_path_factory.mktemp("runs")
    for name, options in {"distilled": (), "plain": ("--model", "deit_tiny_patch16_224")}.items():
        done = train(store.path, shards, folder / name, "--epochs", 3, "--drop-path", 0, *options)
        assert done.exit_code == 0, done.output
    return folder


def logits(student: Student, shards: str) -> tuple[torch.Tensor, ...]:
    """What a student says of every sample, one image at a time."""
    samples, recipe = samples_of(index_shards(expand(shards)), 0), named("none", size=SIZE)
    rows = in_sequence(samples.count.tolist())
    with torch.no_grad():
        said = [student.eval()(Renderer(recipe, samples)(rows[i : i + 1]).images) for i in range(len(rows))]
    return tuple(torch.cat(head) for head in zip(*said, strict=True))


def opened(folder: Path) -> Student:
    weights, noted = read_weights(folder)
    student = build_student(noted["model"], classes=CLASSES, seed=0, **KWARGS)
    assert student.initialize(weights, str(folder)) == []
    return student.eval()


def evaluated(*arguments: object) -> dict[str, object]:
    found = run("evaluate", "--device", "cpu", "--workers", 0, "--json", *arguments)
    assert found.exit_code == 0, found.output
    return json.loads(found.output[found.output.index("{") :])


def test_every_head_is_counted_by_hand(runs: Path, shards: str, tmp_path: Path) -> None:
    found = evaluated("--checkpoint", runs / "distilled", "--shards", shards, "--predictions", tmp_path / "p.parquet")
    heads = logits(opened(runs / "distilled"), shards)
    indexes = index_shards(expand(shards))
    target = torch.tensor([t for index in indexes for t in index.targets])
    table = pq.read_table(tmp_path / "p.parquet").to_pydict()
    assert table["key"] == [key for index in indexes for key in index.keys] and table["target"] == target.tolist()
    for name, head in zip(("class", "distill", "both"), (*heads, sum(heads) / 2), strict=True):
        assert found["heads"][name]["top1"] == pytest.approx(100 * (head.argmax(1) == target).float().mean().item())
        assert found["heads"][name]["top5"] == 100  # of five classes
        assert table[name] == head.argmax(1).tolist()
        assert np.allclose(table[f"{name}_probability"], head.softmax(1).sort(descending=True).values, atol=1e-5)
    assert found["images"] == 23 and found["model_images_per_second"] > found["images_per_second"] > 0
    assert list(evaluated("--checkpoint", runs / "distilled", "--shards", shards, "--head", "both")["heads"]) == [
        "both"
    ]
    assert list(evaluated("--checkpoint", runs / "plain", "--shards", shards)["heads"]) == ["class"]


def test_calls_return_what_the_commands_print(runs: Path, shards: str, tmp_path: Path) -> None:
    rates = {"images_per_second", "model_images_per_second"}
    found = dc.evaluate_student(runs / "distilled", shards, device="cpu", workers=0)
    printed = evaluated("--checkpoint", runs / "distilled", "--shards", shards)
    assert found.keys() == printed.keys() and all(found[name] == printed[name] for name in found.keys() - rates)
    both = (runs / "distilled", runs / "plain")
    compared = dc.compare_students(both, shards, device="cpu")
    assert compared == json.loads(run("compare", *both, "--shards", shards, "--device", "cpu", "--json").stdout)
    dc.export_student(runs / "distilled", tmp_path / "timm", to="timm")
    assert dc.evaluate_student(tmp_path / "timm", shards, device="cpu")["heads"] == found["heads"]
    for wrong, line in (
        ({"head": "teacher"}, "`head`: expected one of class, distill, both, which"),
        ({"batch_size": 0}, "`batch_size`: expected a whole number, 1 or more, found 0"),
        ({"crop_pct": 0}, "crop_pct: expected"),
        ({"workers": -1}, "`workers`: expected a whole number, 0 or more, found -1"),
    ):
        with pytest.raises(dc.InputError, match=re.escape(line)):
            dc.evaluate_student(runs / "distilled", shards, **{"device": "cpu", **wrong})
    with pytest.raises(dc.InputError, match="`checkpoints`: expected one or more students, found none"):
        dc.compare_students([], shards)
    with pytest.raises(dc.InputError, match="`to`: expected one of timm, transformers, onnx, found keras"):
        dc.export_student(runs / "distilled", tmp_path / "keras", to="keras")


def test_top5_and_real_labels_are_those_of_timms_evaluator(photos: list[bytes], tmp_path: Path) -> None:
    numbers = [17, 38_000, 49_999, 86, 4_242, *range(1000, 1018)]
    filenames = [f"ILSVRC2012_val_{n:08d}" for n in numbers]
    with webdataset.TarWriter(str(tmp_path / "val.tar"), mtime=0.0) as tar:
        for name, photo, target in zip(filenames, photos, range(0, 1000, 43), strict=False):
            tar.write({"__key__": name, "jpg": photo, "cls": target})
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=1000).eval()
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    arguments = ("--checkpoint", tmp_path / "vit.pth", "--shards", tmp_path / "val.tar", "--model", "test_vit")
    found = evaluated(*arguments, "--real", "--predictions", tmp_path / "p.parquet")["heads"]["class"]
    top5 = torch.tensor(pq.read_table(tmp_path / "p.parquet")["class_top5"].to_pylist())
    target = torch.arange(0, 1000, 43)[: len(top5), None]
    assert found["top5"] == pytest.approx(100 * (top5 == target).any(1).float().mean().item())
    real = RealLabelsImagenet([""] * 50_000).real_labels
    judge = RealLabelsImagenet.__new__(RealLabelsImagenet)
    judge.real_labels, judge.filenames, judge.topk, judge.is_correct, judge.sample_idx = (
        real, [f"{name}.JPEG" for name in filenames], (1,), {1: []}, 0,
    )  # fmt: skip
    one_hot = F.one_hot(top5[:, 0], 1000).float()
    judge.add_result(one_hot)
    assert found["real_top1"] == pytest.approx(judge.get_accuracy(1)) and len(judge.is_correct[1]) < len(top5) + 1


def test_comparing_says_who_disagrees_and_how_alike_the_tokens_are(
    runs: Path, shards: str, teacher: Teacher, tmp_path: Path
) -> None:
    plain = cached(tmp_path / "none.zarr", expand(shards), teacher, views=1, recipe="none")
    arguments = ("compare", runs / "distilled", runs / "plain", "--shards", shards, "--device", "cpu", "--workers", 0)
    found = run(*arguments, "--cache", plain.path, "--json")
    assert found.exit_code == 0, found.output
    said = json.loads(found.output[found.output.index("{") :])
    heads = logits(opened(runs / "distilled"), shards)
    expected = {
        "ground truth": [t for index in index_shards(expand(shards)) for t in index.targets],
        "teacher": [int(x) for shard in range(2) for x in plain.read(range(1), shard).label[0, : plain.counts[shard]]],
        f"{runs / 'distilled'} class": heads[0].argmax(1).tolist(),
        f"{runs / 'distilled'} distill": heads[1].argmax(1).tolist(),
        f"{runs / 'distilled'} both": (heads[0] + heads[1]).argmax(1).tolist(),
        f"{runs / 'plain'} class": logits(opened(runs / "plain"), shards)[0].argmax(1).tolist(),
    }
    assert said["names"] == list(expected)
    for i, one in enumerate(expected.values()):
        for j, other in enumerate(expected.values()):
            assert said["disagreement"][i][j] == pytest.approx(
                sum(a != b for a, b in zip(one, other, strict=True)) / 23
            )
    assert run(*arguments).exit_code == 0 and "teacher" not in run(*arguments).output


def test_token_similarity_is_read_off_every_block(runs: Path, shards: str) -> None:
    student, noted = opened(runs / "distilled"), []
    images = torch.randint(0, 256, (3, SIZE, SIZE, 3), dtype=torch.uint8)
    hooks = [block.register_forward_hook(lambda *a: noted.append(a[2])) for block in student.model.blocks]
    with torch.no_grad():
        student(images)
    for hook in hooks:
        hook.remove()
    found = student.token_similarity(images)
    assert found.shape == (3, 1 + KWARGS["depth"])
    for layer, tokens in enumerate(noted, start=1):
        assert torch.allclose(found[:, layer], F.cosine_similarity(tokens[:, 0], tokens[:, 1]), atol=1e-5)
    learned = F.cosine_similarity(student.model.cls_token[0], student.model.dist_token[0])
    assert torch.allclose(found[:, 0], learned.expand(3), atol=1e-6)


def test_fine_tuning_at_a_larger_size_keeps_token_and_head(
    runs: Path, shards: str, teacher: Teacher, tmp_path: Path
) -> None:
    larger = cached(tmp_path / "c48.zarr", expand(shards), teacher, views=3, image_size=48)
    kwargs = [f"{key}={value}" for key, value in {**KWARGS, "img_size": 48}.items()]
    arguments = ("train-student", "--shards", shards, "--cache", larger.path, "--out", tmp_path / "out", "--lr", 0)
    arguments += ("--min-lr", 0, "--warmup-lr", 0, "--weight-decay", 0, "--batch-size", 8, "--device", "cpu")
    done = run(*arguments, "--workers", 0, "--init", runs / "distilled", "--model-kwargs", *kwargs)
    assert done.exit_code == 0 and "start afresh" not in done.output, done.output
    before, after = (read_weights(path)[0] for path in (runs / "distilled", tmp_path / "out"))
    assert after["pos_embed"].shape[1] == 2 + 6 * 6 and before["pos_embed"].shape[1] == 2 + 4 * 4
    assert torch.equal(after["pos_embed"][:, :2], before["pos_embed"][:, :2])
    assert all(torch.equal(after[name], before[name]) for name in before if name != "pos_embed")


@pytest.mark.parametrize("with_store", [True, False])
def test_transfer_to_other_classes(with_store: bool, photos: list[bytes], teacher: Teacher, tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "other.tar"), mtime=0.0) as tar:
        for i, photo in enumerate(photos):
            tar.write({"__key__": f"{i}", "jpg": photo, "cls": i % (5 if with_store else 3)})
    source = tmp_path / "deit.pth"  # as DeiT's main.py saves it
    torch.save({"model": build_student(MODEL, classes=7, seed=1, **KWARGS).model.state_dict()}, source)
    target = ["--recipe", "deit", "--image-size", SIZE, "--epochs", 3]
    if with_store:
        target = ["--cache", cached(tmp_path / "c.zarr", [str(tmp_path / "other.tar")], teacher, views=3).path]
    kwargs = [f"{key}={value}" for key, value in KWARGS.items()]
    arguments = ("train-student", "--shards", tmp_path / "other.tar", "--out", tmp_path / "out", "--batch-size", 4)
    arguments += (*target, "--device", "cpu", "--workers", 0, "--lr", 0, "--min-lr", 0, "--warmup-lr", 0)
    done = run(*arguments, "--weight-decay", 0, "--init", source, "--model-kwargs", *kwargs)
    assert done.exit_code == 0, done.output
    assert f"head and head_dist start afresh, for {5 if with_store else 3} classes" in done.output
    before, after = (read_weights(path)[0] for path in (source, tmp_path / "out"))
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("head"))
    assert len(after["head.weight"]) == (5 if with_store else 3)
    assert bool(after["head_dist.weight"].any()) == with_store


def test_teachers_folders_and_deits_own_checkpoints_are_evaluated(
    shards: str, teacher: Teacher, teacher_folder: Path, tmp_path: Path
) -> None:
    found = evaluated("--checkpoint", teacher_folder, "--shards", shards)
    assert (found["mean"], found["size"], found["crop_pct"]) == ([round(m, 4) for m in teacher.mean], SIZE, 1.0)
    student = build_student(MODEL, classes=CLASSES, seed=3, **KWARGS)
    saved = {"model": student.model.state_dict(), "args": argparse.Namespace(lr=1), "epoch": 3}  # as main.py saves it
    torch.save(saved, tmp_path / "checkpoint.pth")
    kwargs = [f"{key}={value}" for key, value in KWARGS.items()]
    arguments = ("--checkpoint", tmp_path / "checkpoint.pth", "--shards", shards, "--model", MODEL)
    said = evaluated(*arguments, "--crop-pct", 0.875, "--model-kwargs", *kwargs)
    target = torch.tensor([t for index in index_shards(expand(shards)) for t in index.targets])
    by_hand = 100 * (logits(student, shards)[0].argmax(1) == target).float().mean().item()
    assert said["heads"]["class"]["top1"] == pytest.approx(by_hand)
    (tmp_path / "broken").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "broken" / name).write_text("{}")
    refused = run("evaluate", "--checkpoint", tmp_path / "broken", "--shards", shards)
    assert refused.exit_code == 2 and "expected a model in timm's local-dir form" in refused.output


def test_weights_that_do_not_fit_are_refused(runs: Path, shards: str, store: Store, tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    torch.save({"model": build_student(MODEL, classes=5, seed=0, **KWARGS).model}, tmp_path / "pickle.pt")
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "other.pth")
    for checkpoint, options, message in (
        (tmp_path / "none.pt", (), "found no such file"),
        (tmp_path / "broken.safetensors", (), "found a file that holds none or is damaged"),
        (tmp_path / "pickle.pt", (), "expected weights (.safetensors, or tensors that torch saved)"),
        (tmp_path / "other.pth", (), "found other weights; name their --model"),
        (tmp_path / "other.pth", ("--model", MODEL), "expected weights with a distillation head, found none"),
        (tmp_path / "other.pth", ("--model", "deit_tiny_patch16_224"), "expected blocks.0"),
        (runs / "plain", ("--head", "distill"), "head: expected one of class"),
        (runs / "plain", ("--real",), "real: expected keys of ImageNet's validation images, found photo000"),
    ):
        found = run("evaluate", "--checkpoint", checkpoint, "--shards", shards, "--workers", 0, *options)
        assert found.exit_code == 2 and message in found.output and "Traceback" not in found.output, found.output
    refused = run("compare", runs / "plain", "--shards", shards, "--cache", store.path)
    assert refused.exit_code == 2 and "expected a store of unaugmented views (--recipe none)" in refused.output
