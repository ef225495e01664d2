"""Teachers and students by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from distillcache.models.loading import load_teacher
from distillcache.models.students import build_student, parse_kwargs
from distillcache.models.teachers import Teacher, save_teacher, weights_digest
from distillcache.runtime.devices import find_device
from distillcache.runtime.inputs import normalize

from ..conftest import run

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("deit_tiny_distilled_patch16_224", 224),
        ("deit_small_distilled_patch16_224", 224),
        ("deit_base_distilled_patch16_384", 384),
    ],
)
def test_deits_distilled_students_have_two_heads(name: str, size: int) -> None:
    student = build_student(name, classes=1000, seed=0)
    student.require_size(size)
    with pytest.raises(ValueError, match=f"expected one for views of 32 pixels, found one for {size}"):
        student.require_size(32)
    images = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8)
    for mode in (True, False):
        student.train(mode)
        with torch.inference_mode():
            assert [tuple(head.shape) for head in student(images)] == [(1, 1000), (1, 1000)]


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "deit_base_patch16_224"])
def test_students_without_the_token_have_one_head(name: str) -> None:
    student = build_student(name, classes=1000, seed=0).eval()
    with torch.inference_mode():
        (logits,) = student(torch.randint(0, 256, (1, 224, 224, 3), dtype=torch.uint8))
    assert student.heads == ("class",) and logits.shape == (1, 1000)


@pytest.mark.parametrize("name", ["regnety_160"])
def test_the_papers_teachers_fill_a_store_by_the_same_command(name: str, shards: str, tmp_path: Path) -> None:
    """With random weights in timm's local-dir form, through the code that loads the real ones."""
    assert any(weights.startswith(f"{name}.") for weights in timm.list_pretrained(f"{name}*"))
    torch.manual_seed(0)
    save_teacher(timm.create_model(name), tmp_path / "teacher", name=name, size=224, class_names=())
    url = sorted(Path(shards).parent.glob("*.tar"))[1]
    arguments = ("--shards", url, "--cache", tmp_path / "c.zarr", "--recipe", "none", "--views", 1, "--device", "cpu")
    found = run("cache-teacher", *arguments, "--teacher", tmp_path / "teacher", "--workers", 0)
    assert found.exit_code == 0 and "labels   11\n" in found.output, found.output


def test_a_student_starts_from_its_seed() -> None:
    kwargs = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    digests = [
        weights_digest(build_student("deit_tiny_distilled_patch16_224", classes=3, seed=s, **kwargs)) for s in (0, 0, 1)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_model_arguments_are_read_as_timm_reads_them() -> None:
    assert parse_kwargs(["img_size=32 depth=6", "qkv_bias=False", "act_layer=relu", "mlp_ratio=2.5"]) == {
        "img_size": 32,
        "depth": 6,
        "qkv_bias": False,
        "act_layer": "relu",
        "mlp_ratio": 2.5,
    }
    with pytest.raises(ValueError, match="expected KEY=VALUE, found 'depth'"):
        parse_kwargs(["depth"])


def test_views_are_normalised_as_torchvision_does() -> None:
    from torchvision.transforms import v2

    images = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    theirs = v2.functional.normalize(images.permute(0, 3, 1, 2) / 255, mean, std)
    assert torch.allclose(normalize(images, torch.tensor(mean), torch.tensor(std)), theirs, atol=1e-5)


def test_a_saved_teacher_is_loaded_by_folder_and_by_timms_name_alike(teacher: Teacher, teacher_folder: Path) -> None:
    again = load_teacher(f"local-dir:{teacher_folder}", device=CPU, amp=False)
    assert again.sha256 == teacher.sha256 and again.class_names == teacher.class_names
    assert (again.input_size, again.mean, again.classes) == (32, teacher.mean, 5)
    assert not again.model.training and not any(p.requires_grad for p in again.model.parameters())


def test_bfloat16_changes_the_logits_a_little(teacher: Teacher) -> None:
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    exact, half = teacher.logits(images), replace(teacher, dtype="bfloat16").logits(images)
    assert half.dtype == torch.float32 and not torch.equal(exact, half)
    assert torch.allclose(exact, half, atol=0.2 * float(exact.abs().max()))


def test_a_teacher_that_torch_compile_can_not_take_is_said_in_one_line(
    teacher_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiles_not(model: nn.Module) -> Any:
        def model_of(images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C++ compiler\nand so on")

        return model_of

    monkeypatch.setattr(torch, "compile", compiles_not)
    compiled = load_teacher(str(teacher_folder), device=CPU, amp=False, compiled=True)
    with pytest.raises(ValueError, match=r"`compile`: .*found no C\+\+ compiler; leave `compile` out$"):
        compiled.logits(torch.zeros((1, 32, 32, 3), dtype=torch.uint8))


def test_a_device_that_is_not_there_is_named() -> None:
    for name in ("abacus", "cuda:63"):
        with pytest.raises(ValueError, match=f"`device`: expected .*, found '{name}'"):
            find_device(name)
