"""Students in other programs' hands: loaded by those, they say the same."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from distillcache.cache.store import Store
from distillcache.datasets.augment import pixels
from distillcache.datasets.augment.plans import plan_view
from distillcache.datasets.augment.recipes import named
from distillcache.models.students import Student, trained_student
from distillcache.runtime.inputs import normalize
from distillcache.train.checkpoint import read_weights

from ..conftest import CLASSES, SIZE, run
from ..hub import Hub


@pytest.fixture(scope="module")
def trained(store: Store, shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DeiT of two heads that was trained a little, so that they differ."""
    out = tmp_path_factory.mktemp("run") / "tiny"
    options = [
        "--epochs",
        3,
        "--batch-size",
        8,
        "--warmup-epochs",
        0,
        "--lr",
        0.1,
        "--device",
        "cpu",
        "--val-shards",
        shards,
    ]
    kwargs = ["--model-kwargs", f"img_size={SIZE}", "embed_dim=24", "depth=2"]
    done = run("train-student", "--shards", shards, "--cache", store.path, "--out", out, *options, *kwargs)
    assert done.exit_code == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def student(trained: Path) -> Student:
    weights, config = read_weights(trained)
    return trained_student(config["model"], weights, "", **config["model_kwargs"]).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (3, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_timm_loads_it_with_both_heads(trained: Path, student: Student, images: torch.Tensor, tmp_path: Path) -> None:
    done = run("export-student", trained, "--to", "timm", "--out", tmp_path / "timm", "--license", "mit")
    assert done.exit_code == 0 and done.stdout.endswith("/timm: README.md, config.json, model.safetensors\n"), (
        done.stderr
    )
    model = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    with torch.inference_mode():
        ours = student(images)
    mean, std = (torch.tensor(model.pretrained_cfg[name]) for name in ("mean", "std"))
    with torch.inference_mode():
        assert torch.equal(model(normalize(images, mean, std)), (ours[0] + ours[1]) / 2)
    assert model.pretrained_cfg["label_names"] == [f"class {number}" for number in range(CLASSES)]
    assert not torch.equal(*ours) and [*model.pretrained_cfg["input_size"]] == [3, SIZE, SIZE]
    card = (tmp_path / "timm" / "README.md").read_text()
    assert card.startswith('---\nlicense: "mit"\n') and "| teacher |" in card and "| store |" in card
    assert re.search(r"\| top-1, class head \| \d+\.\d\d% \|\n\| top-1, distill head \| ", card)
    again = run("export-student", trained, "--to", "timm", "--out", tmp_path / "timm")
    assert again.exit_code == 2 and "out: expected a folder that is not there yet" in again.stderr


def test_transformers_loads_it_with_both_heads(
    trained: Path, student: Student, images: torch.Tensor, photos: list[bytes], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="SKIPPED: no transformers")
    done = run("export-student", trained, "--to", "transformers", "--out", tmp_path / "hf")
    assert done.exit_code == 0, done.stderr
    assert done.output.count("\n") == 1
    model = transformers.DeiTForImageClassificationWithTeacher.from_pretrained(tmp_path / "hf").eval()
    assert model.config.id2label[1] == "class 1" and model.config.label2id["class 4"] == 4
    with torch.inference_mode():
        theirs, ours = model(normalize(images, student.mean, student.std)), student(images)
    torch.testing.assert_close(theirs.cls_logits, ours[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(theirs.distillation_logits, ours[1], rtol=0, atol=1e-5)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    recipe = named("none", size=SIZE)
    for photo in (pixels.decode(data) for data in photos[:6]):
        view = pixels.render(plan_view(recipe, 0, 0, *photo.shape[:2]), photo)
        theirs = processor(photo, return_tensors="pt")["pixel_values"]
        ours = normalize(torch.from_numpy(view)[None], student.mean, student.std)
        shifted = (torch.roll(theirs, (dy, dx), (2, 3)) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
        apart = min(float((one - ours)[..., 1:-1, 1:-1].abs().mean()) for one in shifted)
        assert apart < 0.03, "the same crop, but for the pixel at which an odd one begins"


def test_onnxruntime_runs_it_with_both_heads(
    trained: Path, student: Student, images: torch.Tensor, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="SKIPPED: no onnxruntime")
    done = run("export-student", trained, "--to", "onnx", "--out", tmp_path / "onnx")
    assert done.exit_code == 0, done.stderr
    assert done.output.count("\n") == 1
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "student.onnx")
    theirs = session.run(["class", "distill"], {"images": normalize(images, student.mean, student.std).numpy()})
    with torch.inference_mode():
        ours = student(images)
    for logits, expected in zip(theirs, ours, strict=True):
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=1e-4)


def test_transformers_has_no_other_students(store: Store, shards: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="SKIPPED: no transformers")
    options = ["--epochs", 1, "--batch-size", 8, "--warmup-epochs", 0, "--drop-path", 0, "--device", "cpu"]
    model = ["--model", "test_efficientnet"]
    assert (
        run(
            "train-student", "--shards", shards, "--cache", store.path, "--out", tmp_path / "r", *options, *model
        ).exit_code
        == 0
    )
    done = run("export-student", tmp_path / "r", "--to", "transformers", "--out", tmp_path / "hf")
    assert done.exit_code == 2
    assert "to: expected a DeiT with a distillation token, which is all that transformers has" in done.stderr
    assert run("export-student", tmp_path / "r", "--to", "timm", "--out", tmp_path / "timm").exit_code == 0


def test_the_hub_gets_a_student_and_timm_has_it_from_there(trained: Path, tmp_path: Path) -> None:
    """With the Hub's own client, against a server on this machine that speaks its protocol."""
    load = "import timm, sys; print(timm.create_model('hf-hub:me/tiny', pretrained=True).head_dist.weight.std().item())"
    with Hub() as hub:
        own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path)}

        def python(*arguments: object) -> subprocess.CompletedProcess[str]:
            line = [sys.executable, *map(str, arguments)]
            return subprocess.run(line, env={**os.environ, **own}, capture_output=True, text=True, check=False)

        push = ["-m", "distillcache.cli", "export-student", trained, "--to", "timm", "--push", "hf://me/tiny", "--out"]
        done = python(*push, tmp_path / "one")
        assert done.returncode == 0, done.stderr
        assert {"README.md", "config.json", "model.safetensors"} <= hub.files["me/tiny"].keys()
        assert b"hf-hub:me/tiny" in hub.files["me/tiny"]["README.md"]
        loaded = python("-c", load)
        weights, _ = read_weights(trained)
        assert loaded.returncode == 0 and float(loaded.stdout) == weights["head_dist.weight"].std().item(), (
            loaded.stderr
        )
        hub.refuses = True
        refused = python(*push, tmp_path / "two")
        assert refused.returncode == 2 and "expected a model that can be written" in refused.stderr
        assert "secret" not in refused.stderr
