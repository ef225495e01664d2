"""Every timm model that trains distilled, with both heads; and timm's other classifiers, with their one."""

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load, save
from torch.nn.functional import cross_entropy

from distillcache.models.students import build_student
from distillcache.runtime.inputs import normalize
from distillcache.train.checkpoint import save_weights

SMALL: dict[str, dict[str, Any]] = {
    "deit": {"img_size": 32, "depth": 2},
    "efficientformer": {"depths": (1, 1, 1, 2), "num_vit": 1},
    "efficientformer_v2": {"img_size": 64, "depths": (1, 1, 1, 1)},
    "efficientvim": {"depths": (1, 1, 1)},
    "iformer": {"depths": (1, 1, 3, 3), "attn_groups": (0, 0, 1, 1)},
    "levit": {"img_size": 96, "depth": (1, 1, 1)},
    "pit": {"img_size": 64, "depth": (1, 1, 1)},
    "repvit": {"depth": (1, 1, 1, 1)},
    "swiftformer": {"layers": (1, 1, 1, 1)},
}
"""For each file of timm's with distilled training, as few blocks as it takes; every model keeps its own width."""
SIZES = {"efficientformer": 224, "efficientvim": 96}
"""The one size that a model takes, and the smallest that leaves the last stage more than one token; others: 64."""


def file_of(name: str) -> str:
    return timm.model_entrypoint(name).__module__


def distilled() -> list[str]:
    """Return all models from timm's files that define distilled training."""
    models = {name: file_of(name) for name in timm.list_models()}
    sources = {file: Path(sys.modules[file].__file__ or "").read_text() for file in set(models.values())}
    return [name for name, file in models.items() if "def set_distilled_training" in sources[file]]


def images(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def made_for_two_heads(name: str, kwargs: dict[str, Any]) -> tuple[bool, bool]:
    """Return what timm itself says: whether a model can be told to train distilled, and whether it has the head."""
    with torch.device("meta"):
        model = timm.create_model(name, **kwargs)
    return hasattr(model, "set_distilled_training"), any("dist" in weight for weight in model.state_dict())


@pytest.mark.parametrize("name", distilled())
def test_each_distilled_model_of_timm_trains_both_heads_and_loads_in_plain_timm(name: str) -> None:
    file = file_of(name).rpartition(".")[2]
    kwargs = SMALL[file]
    told, has_head = made_for_two_heads(name, kwargs)
    if not (told and has_head):
        assert not has_head, "this one trains as any other classifier"
        assert not told or build_student(name, classes=7, seed=0, drop_path=0.0, **kwargs).heads == ("class",)
        return
    student = build_student(name, classes=7, seed=0, drop_path=0.0, **kwargs)
    assert student.heads == ("class", "distill")
    for parameter in student.parameters():  # some start as zeros, which let no gradient through
        parameter.data.add_(torch.randn_like(parameter), alpha=0.02)
    views = images(3, kwargs.get("img_size") or SIZES.get(file, 64))
    logits = student.train()(views)
    sum(cross_entropy(one, torch.arange(3) + 3 * head) for head, one in enumerate(logits)).backward()
    untrained = [weight for weight, p in student.named_parameters() if p.grad is None or not p.grad.any()]
    assert untrained == []
    torch.optim.SGD(student.parameters(), lr=0.01).step()

    plain = timm.create_model(name, num_classes=7, **kwargs)
    plain.load_state_dict(load(save(student.model.state_dict())))
    with torch.inference_mode():
        of_class, of_distillation = student.eval()(views)
        mean = plain.eval()(normalize(views, student.mean, student.std))
    assert of_class.shape == of_distillation.shape == (3, 7)
    assert float((of_class - of_distillation).abs().max()) > 1e-3
    torch.testing.assert_close((of_class + of_distillation) / 2, mean, rtol=1e-5, atol=1e-5)


def test_every_pair_of_heads_starts_afresh_for_other_classes() -> None:
    """timm's notes on this model name one of its two heads."""
    student, other = (build_student("levit_384_s8", classes=n, seed=0, drop_path=0.0, img_size=64) for n in (7, 3))
    afresh = other.initialize(student.model.state_dict(), "w")
    assert afresh == ["head.linear", "head_dist.linear"]


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "test_convnext",
        "test_nfnet",
        "test_vit",
        "test_coatnet",
        "ghostnet_050",
        "mobilevit_xxs",
        "gmlp_ti16_224",
        "swin_tiny_patch4_window7_224",
        "coat_tiny",
        "crossvit_tiny_240",
        "naflexvit_base_patch16_gap",
    ],
)
def test_classifiers_of_all_kinds_train_with_one_head_and_load_in_plain_timm(name: str, tmp_path: Path) -> None:
    """Convolutions, attention, both, MLPs; heads behind norms; weights by several names, and means of 0.5 or 0."""
    if not timm.is_model(name):
        pytest.skip("this timm has no such model")
    kwargs = {"depth": 2} if "naflex" in name else {"depths": (1, 1, 1, 1)} if "swin" in name else {}
    student = build_student(name, classes=7, seed=0, drop_path=0.0, **kwargs)
    student.require_size(student.image_size)
    views = images(2, student.image_size)
    (logits,) = student.train()(views)
    cross_entropy(logits, torch.tensor([1, 2])).backward()
    assert student.heads == ("class",) and [w for w, p in student.named_parameters() if p.grad is None] == []
    save_weights(tmp_path / "student.safetensors", student.model, {})
    plain = timm.create_model(name, num_classes=7, checkpoint_path=tmp_path / "student.safetensors", **kwargs)
    with torch.inference_mode():
        torch.testing.assert_close(
            student.eval()(views)[0], plain.eval()(normalize(views, student.mean, student.std)), rtol=1e-4, atol=1e-5
        )


def test_a_model_of_one_head_says_which_images_it_takes() -> None:
    """Also one that has no patches, and is made for its size all the same."""
    with pytest.raises(ValueError, match="expected one for views of 64 pixels, found one for 160; add `model_kwargs="):
        build_student("test_coatnet", classes=7, seed=0).require_size(64)
    build_student("test_coatnet", classes=7, seed=0, img_size=64).require_size(64)


def test_an_encoder_without_classes_is_refused() -> None:
    if not timm.is_model("mobilenetv5_300m_enc"):
        pytest.skip("this timm has no such model")
    with torch.device("meta"), pytest.raises(ValueError, match="model mobilenetv5_300m_enc: expected a classifier"):
        build_student("mobilenetv5_300m_enc", classes=7, seed=0)
