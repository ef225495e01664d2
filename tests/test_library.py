"""Both stages as a program calls them, and models of one's own by name."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import distillcache as dc

from .conftest import CLASSES, SIZE, run

SMALL = {"img_size": SIZE, "embed_dim": 24, "depth": 1}
LIMIT = 180


class Told(dc.Reporter):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, int | None]] = []
        self.lines: list[str] = []
        self.done = 0

    def part(self, what: str, total: int | None, unit: str) -> AbstractContextManager[dc.Reporter]:
        self.parts.append((what, total))
        return super().part(what, total, unit)

    def log(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, n: int = 1) -> None:
        self.done += n


class Kept:
    """A tracker."""

    def __init__(self) -> None:
        self.figures: list[tuple[int, Mapping[str, float]]] = []
        self.finished = False

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self.figures.append((step, figures))

    def finish(self) -> None:
        self.finished = True


def test_both_stages_are_calls_that_do_what_the_commands_do(shards: str, teacher: dc.Teacher, tmp_path: Path) -> None:
    told, tracker = Told(), Kept()
    store = dc.cache_teacher(
        tmp_path / "c.zarr", shards, teacher, views=3, image_size=SIZE, top1=lambda asked: 12.5, reporter=told
    )
    assert told.parts == [("reading shards", None), ("cache-teacher", 3 * 23)] and store.manifest.teacher_top1 == 12.5
    figures = dc.train_student(
        tmp_path / "mine", shards, store=store, val_shards=shards, model_kwargs=SMALL, epochs=3, warmup_epochs=0,
        batch_size=8, device="cpu", log_every=2, trackers=[tracker], reporter=told,
    )  # fmt: skip
    assert figures and tracker.finished and {"top1_class", "top1_both", "val_loss_distill"} <= {*figures}
    steps = [step for step, row in tracker.figures if "step/grad_norm" in row]
    assert steps == [2, 4, 6, 8] and ("train-student", 64) in told.parts and told.lines[-1].startswith("epoch 3/3")
    options = ["--shards", shards, "--cache", store.path, "--val-shards", shards, "--epochs", 3, "--warmup-epochs", 0]
    kwargs = [f"{name}={value}" for name, value in SMALL.items()]
    out = ("--batch-size", 8, "--device", "cpu", "--out", tmp_path / "commands", "--model-kwargs", *kwargs)
    done = run("train-student", *options, *out)
    assert done.exit_code == 0, done.stderr
    mine, theirs = (load_file(tmp_path / name / "student.safetensors") for name in ("mine", "commands"))
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    again = run("train-student", "--config", tmp_path / "mine", "--out", tmp_path / "again")
    assert again.exit_code == 0, again.stderr
    theirs = load_file(tmp_path / "again" / "student.safetensors")
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    again = dc.train_student(
        tmp_path / "mine", shards, store=tmp_path / "c.zarr", val_shards=shards, model_kwargs=SMALL, epochs=3,
        warmup_epochs=0, batch_size=8, device="cpu",
    )  # fmt: skip
    assert again == figures
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(dc.InputError, match="other: expected a store, or nothing yet, found something else"):
        dc.cache_teacher(tmp_path / "other", shards, teacher, views=3, image_size=SIZE)
    with pytest.raises(dc.InputError, match="expected arguments that it has, found batchsize; did you mean batch_size"):
        dc.train_student(tmp_path / "other2", shards, store=store, batchsize=3, device="cpu")  # type: ignore[call-arg]
    with pytest.raises(dc.InputError, match="`model`: expected a timm name or MODULE:FUNCTION"):
        dc.train_student(tmp_path / "other2", shards, store=store, model=torch.nn.Flatten(), device="cpu")
    with pytest.raises(dc.InputError, match="recipe: expected the store's own, found another"):
        dc.train_student(tmp_path / "other", shards, store=store, recipe="deit", device="cpu")


@pytest.mark.parametrize("wrong", [None, 3, [], ["a"], torch.nn.Flatten()], ids=repr)
def test_what_is_no_path_is_one_line(wrong: Any, store: dc.Store, shards: str, teacher: dc.Teacher) -> None:
    stored = store.path
    calls: list[Callable[[], object]] = [
        lambda: dc.open_store(wrong),
        lambda: dc.ViewDataset(wrong, shards, batch_size=8),
        lambda: dc.cache_teacher(wrong, shards, teacher),
        lambda: dc.train_student(wrong, shards, store=stored),
        lambda: dc.evaluate_student(wrong, shards),
        lambda: dc.export_student(wrong, "out", to="timm"),
        lambda: dc.export_student("run", wrong, to="timm"),
    ]
    if not isinstance(wrong, list) or not wrong:
        calls += [
            lambda: dc.ViewDataset(stored, wrong, batch_size=8),
            lambda: dc.cache_teacher("new.zarr", wrong, teacher),
            lambda: dc.train_student("out", wrong, store=stored),
            lambda: dc.evaluate_student("run", wrong),
        ]
    for call in calls:
        with pytest.raises(dc.InputError, match=r"expected [^\n]*, found [^\n]*$"):
            call()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"epochs": "1"}, "epochs: expected int, found '1'"),
        ({"lr": "x"}, "lr: expected float, found 'x'"),
        ({"reuse_views": "no"}, "reuse_views: expected bool, found 'no'"),
        ({"seed": 1.5}, "seed: expected int, found 1.5"),
        ({"seed": -1}, "`seed`: expected 0 to"),
        ({"missing": "x"}, "`missing`: expected stop or drop, found 'x'"),
        ({"log_every": -1}, "`log_every`: expected a whole number, 0 or more, found -1"),
        ({"device": torch.device("meta")}, "`device`: expected one that this machine has"),
        ({"model_kwargs": {"act_layer": torch.nn.ReLU}}, "`model_kwargs`: expected numbers, texts and lists of them"),
        ({"out": __file__}, "`out`: expected a folder, found the file"),
    ],
    ids=lambda given: next(iter(given.items())) if isinstance(given, dict) else "",
)  # fmt: skip
def test_what_a_run_can_not_be_asked_is_one_line(
    given: dict[str, Any], line: str, store: dc.Store, shards: str, tmp_path: Path
) -> None:
    asked = {"out": tmp_path / "out", "store": store, "model_kwargs": SMALL, "device": torch.device("cpu")} | given
    with pytest.raises(dc.InputError, match=re.escape(line)):
        dc.train_student(asked.pop("out"), shards, **asked)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"seed": 1.5}, "seed: expected int, found 1.5"),
        ({"seed": True}, "seed: expected int, found True"),
        ({"seed": -1}, "`seed`: expected a whole number, 0 to"),
        ({"topk": "3"}, "topk: expected int, found '3'"),
        ({"recipe": 3}, "recipe: expected one of"),
        ({"overrides": [3]}, "recipe field: expected FIELD=VALUE, found 3"),
    ],
    ids=lambda given: next(iter(given.items())) if isinstance(given, dict) else "",
)  # fmt: skip
def test_what_a_store_can_not_be_asked_leaves_none(
    given: dict[str, Any], line: str, shards: str, teacher: dc.Teacher, tmp_path: Path
) -> None:
    with pytest.raises(dc.InputError, match=re.escape(line)):
        dc.cache_teacher(tmp_path / "c.zarr", shards, teacher, **{"views": 3, "image_size": SIZE, **given})
    assert not [*tmp_path.iterdir()]


def test_alike_views_and_a_top1_that_is_none_are_told(shards: str, teacher: dc.Teacher, tmp_path: Path) -> None:
    told = Told()
    given = {"views": 2, "recipe": "none", "image_size": SIZE, "reporter": told}
    for wrong in (500.0, float("nan")):
        with pytest.raises(dc.InputError, match="`top1`: expected a function that returns percent, 0 to 100, found"):
            dc.cache_teacher(tmp_path / "c.zarr", shards, teacher, top1=lambda _, wrong=wrong: wrong, **given)
    assert "all 2 views of an image are alike by recipe none; `views=1` is enough" in told.lines
    store = dc.cache_teacher(tmp_path / "c.zarr", shards, teacher, top1=lambda _: np.float32(12.5), **given)
    assert dc.open_store(store.path).manifest.teacher_top1 == 12.5


def test_a_script_of_two_ranks_makes_stores_one_after_the_other_and_trains(
    shards: str, teacher_folder: Path, store: dc.Store, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"""
import distillcache as dc

if __name__ == "__main__":
    teacher = dc.load_teacher({str(teacher_folder)!r})
    for name in ("a", "b"):
        made = dc.cache_teacher(name + ".zarr", {shards!r}, teacher, views=3, image_size={SIZE}, batch_size=4)
    figures = dc.train_student(
        "run", {shards!r}, store=made, model_kwargs={SMALL!r}, epochs=1, warmup_epochs=0, batch_size=8, device="cpu"
    )
    print("first" if figures else "other")
""")
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    done = subprocess.run(
        [*line, "--rdzv-endpoint", "localhost:0", script], cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=LIMIT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0 and sorted(done.stdout.split()) == ["first", "other"], done.stderr
    for name in ("a", "b"):
        np.testing.assert_array_equal(
            dc.open_store(tmp_path / f"{name}.zarr").read(range(3)).label, store.read(range(3)).label
        )
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["epochs"] == 1


def test_exported_programs_hugging_faces_models_and_several_are_teachers_by_name(
    shards: str, teacher: dc.Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers", reason="SKIPPED: no transformers")
    monkeypatch.chdir(tmp_path)
    config = transformers.ViTConfig(
        image_size=SIZE, hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=48,
        num_labels=CLASSES,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained("vit")
    transformers.ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained("vit")
    batch = {"dynamic_shapes": ({0: torch.export.Dim("n")},)}
    program = torch.export.export(teacher.model, (torch.zeros(2, 3, SIZE, SIZE),), **batch)
    notes = {"mean": teacher.mean, "std": teacher.std, "class_names": teacher.class_names}
    torch.export.save(program, "t.pt2", extra_files={"teacher.json": json.dumps(notes)})
    options = ["--shards", shards, "--image-size", SIZE, "--views", 3, "--device", "cpu"]
    done = run("cache-teacher", *options, "--cache", "c.zarr", "--teacher", "t.pt2", "--teacher", "hf://vit")
    assert done.exit_code == 0, done.stderr
    one, other = dc.load_teacher("t.pt2"), dc.load_teacher("hf://vit")
    record = dc.open_store("c.zarr").manifest.teacher
    assert record.name == "t.pt2 + hf://vit" and other.mean == (0.5, 0.5, 0.5) and other.crop_pct == 1
    images = torch.randint(0, 256, (3, SIZE, SIZE, 3), dtype=torch.uint8)
    torch.testing.assert_close(one.logits(images), teacher.logits(images))
    both = dc.ensemble([one, other])
    by_hand = dc.cache_teacher("d.zarr", shards, lambda: both, views=3, image_size=SIZE)
    np.testing.assert_array_equal(dc.open_store("c.zarr").labels(0), by_hand.labels(0))
    assert dc.open_store("c.zarr").manifest.class_names == teacher.class_names

    torch.export.save(program, "bare.pt2")
    torch.export.save(torch.export.export(teacher.model, (torch.zeros(2, 3, SIZE, SIZE),)), "two.pt2")
    Path("no.pt2").write_text("no program")
    for name, line in (
        ("bare.pt2", "expected mean and std in its teacher.json, found neither; save it with extra_files="),
        ("two.pt2", "expected a program for any number of images, found one for 2; export it with dynamic_shapes="),
        ("no.pt2", "expected a program that torch.export saved, found an error: "),
        ("hf://absent", "expected an image classifier of transformers', found an error: "),
    ):
        refused = run("cache-teacher", *options, "--cache", "e.zarr", "--teacher", name)
        assert refused.exit_code == 2 and f"teacher {name}: {line}" in refused.stderr, refused.stderr
        assert refused.stderr.count("\n") == 1 and not Path("e.zarr").exists()


def test_a_student_of_ones_own_code_is_trained_resumed_measured_and_exported(
    store: dc.Store, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_student.py").write_text(
        "import distillcache as dc\n"
        "from torch import nn\n"
        "class Two(nn.Module):\n"
        "    def __init__(self, classes, width):\n"
        "        super().__init__()\n"
        "        self.trunk = nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.GELU())\n"
        "        self.one, self.two = nn.Linear(width, classes), nn.Linear(width, classes)\n"
        "    def forward(self, images):\n"
        "        features = self.trunk(images).mean((2, 3))\n"
        "        return self.one(features), self.two(features)\n"
        "def build(classes, width=8, heads=2):\n"
        f"    given = dict(classes=classes, image_size={SIZE}, mean=(0.5,) * 3, std=(0.5,) * 3, heads=heads)\n"
        "    return dc.as_student(Two(classes, width), **given)\n"
    )
    options = ["--shards", shards, "--cache", store.path, "--model", "my_student:build", "--batch-size", 8]
    options += ["--warmup-epochs", 0, "--device", "cpu", "--epochs", 2]
    whole = run("train-student", *options, "--out", "whole", "--model-kwargs", "width=12")
    assert whole.exit_code == 0, whole.stderr
    stop = Told()
    monkeypatch.setattr(stop, "advance", lambda n: os.kill(os.getpid(), 2))
    given = {"store": store, "model": "my_student:build", "batch_size": 8, "warmup_epochs": 0, "epochs": 2}
    with pytest.raises(dc.RunInterruptedError):
        dc.train_student("parts", shards, model_kwargs={"width": 12}, device="cpu", reporter=stop, **given)
    assert dc.train_student("parts", shards, model_kwargs={"width": 12}, device="cpu", **given)
    one, other = (load_file(f"{name}/student.safetensors") for name in ("whole", "parts"))
    assert one["one.weight"].shape == (CLASSES, 12) and all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["one.weight"], one["two.weight"])
    measured = run("evaluate", "--checkpoint", "parts", "--shards", shards, "--device", "cpu", "--json")
    assert {*json.loads(measured.stdout)["heads"]} == {"class", "distill", "both"}, measured.stderr
    exported = run("export-student", "whole", "--to", "onnx", "--out", "onnx")
    assert exported.exit_code == 0 and Path("onnx/student.onnx").exists(), exported.stderr
    for more, line in (
        (
            ["--model-kwargs", "heads=1"],
            "model: expected 1 of logits (2, 5), for images of 32 pixels, found (2, 5) and",
        ),
        (["--model-kwargs", "depth=1"], "model my_student:build: expected a function that returns a student, found"),
    ):
        refused = run("train-student", *options, "--out", "refused", *more)
        assert refused.exit_code == 2 and line in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr
    refused = run("export-student", "whole", "--to", "timm", "--out", "timm")
    assert refused.exit_code == 2 and "to: expected a model of timm's, found Two; name --to onnx" in refused.stderr
