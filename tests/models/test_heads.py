"""Models with two heads: every family of timm's, held to timm's own output."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from distillcache.cache.store import Store
from distillcache.models.heads import distillation_head
from distillcache.models.students import Student, build_student
from distillcache.runtime.inputs import normalize

from ..conftest import run
from .test_timm import SMALL, file_of

FAMILIES = (
    "deit_tiny_distilled_patch16_224",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "efficientvim_m1_dist",
    "iformer_m_distilled",
    "levit_128s",
    "levit_conv_128s",
    "pit_ti_distilled_224",
    "repvit_m0_9",
    "swiftformer_xs",
)
"""The smallest distilled model of each; the oldest timm that is allowed lacks some."""
IMAGES = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def few_blocks(name: str) -> dict[str, Any]:
    return {key: value for key, value in SMALL[file_of(name).rpartition(".")[2]].items() if key != "img_size"}


@pytest.fixture(params=[name for name in FAMILIES if timm.is_model(name)])
def student(request: pytest.FixtureRequest) -> Student:
    """A student whose heads differ, also where timm starts them as zeros; of few blocks."""
    built = build_student(request.param, classes=7, seed=0, drop_path=0.0, **few_blocks(request.param))
    torch.manual_seed(1)
    for parameter in built.model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.02)
    return built


def test_all_families_of_timm_are_here() -> None:
    folder = Path(timm.models.__file__).parent
    families = {path.stem for path in folder.glob("*.py") if "def set_distilled_training" in path.read_text()}
    tried = {timm.model_entrypoint(name).__module__.rpartition(".")[2] for name in FAMILIES if timm.is_model(name)}
    assert families == tried


def test_both_heads_answer_in_evaluation_and_their_mean_is_timms_own_answer(student: Student) -> None:
    plain = copy.deepcopy(student.model).eval()
    plain.set_distilled_training(False)
    student.eval()
    with torch.inference_mode():
        logits = student(IMAGES)
        assert torch.equal((logits[0] + logits[1]) / 2, plain.eval()(normalize(IMAGES, student.mean, student.std)))
    assert student.heads == ("class", "distill") and not torch.equal(*logits) and logits[0].shape == (2, 7)
    still_training = [module for module in student.modules() if module.training]
    assert len(still_training) == 1 and not isinstance(still_training[0], nn.BatchNorm2d | nn.BatchNorm1d | nn.Dropout)


def test_training_is_timms_own_distilled_training(student: Student) -> None:
    plain = copy.deepcopy(student.model).train()
    plain.set_distilled_training(True)
    answers = []
    for model in (student.train(), lambda images: plain(normalize(images, student.mean, student.std))):
        torch.manual_seed(2)
        answers.append(model(IMAGES))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*answers, strict=True))


def test_asking_for_the_heads_changes_no_weight_and_draws_nothing(student: Student) -> None:
    weights, drawn = copy.deepcopy(student.model.state_dict()), torch.get_rng_state()
    Student(student.model, student.image_size)
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(weights[name], value) for name, value in student.model.state_dict().items())


def test_a_silent_head_leaves_half_of_the_class_heads_answer_and_all_else_is_trained(student: Student) -> None:
    student.silence_distillation_head()
    (logits,) = student.eval()(IMAGES)
    student.model.set_distilled_training(False)
    assert torch.equal(student.model.eval()(normalize(IMAGES, student.mean, student.std)), logits / 2)
    student.model.set_distilled_training(True)
    student.train()(IMAGES)[0].sum().backward()
    assert [name for name, p in student.model.named_parameters() if p.requires_grad and p.grad is None] == []
    name = student.model.pretrained_cfg["architecture"]
    again = build_student(name, classes=7, seed=1, drop_path=0.0, **few_blocks(name))
    assert again.initialize(student.model.state_dict(), "w") == [] and again.heads == ("class",)


def test_weights_for_other_classes_go_on_with_new_heads(student: Student) -> None:
    name = student.model.pretrained_cfg["architecture"]
    other = build_student(name, classes=3, seed=1, drop_path=0.0, **few_blocks(name))
    afresh = other.initialize(student.model.state_dict(), "w")
    assert set(afresh) == set(student.model.pretrained_cfg["classifier"])
    with torch.inference_mode():
        assert [head.shape for head in other(IMAGES)] == [(2, 3)] * 2


def test_deits_logits_are_those_of_its_two_tokens() -> None:
    student = build_student("deit_tiny_distilled_patch16_224", classes=7, seed=0)
    for mode in (True, False):
        student.train(mode)
        torch.manual_seed(3)
        logits = student(IMAGES)
        torch.manual_seed(3)
        tokens = student.model.forward_features(normalize(IMAGES, student.mean, student.std))
        assert torch.equal(logits[0], student.model.head(tokens[:, 0]))
        assert torch.equal(logits[1], student.model.head_dist(tokens[:, 1]))


@pytest.mark.parametrize("name", ["pit_ti_224", "iformer_s"])
def test_a_model_of_one_head_trains_with_that_where_its_family_has_two(name: str) -> None:
    if not timm.is_model(name):
        pytest.skip("this timm has no such model")
    student = build_student(name, classes=7, seed=0)
    assert student.heads == ("class",) and not student.distilled
    (logits,) = student.train()(IMAGES)
    logits.sum().backward()
    assert [name for name, p in student.model.named_parameters() if p.grad is None] == []
    plain = copy.deepcopy(student.model).eval()
    assert torch.equal(student.eval()(IMAGES)[0], plain(normalize(IMAGES, student.mean, student.std)))


def test_weights_for_a_second_head_that_never_answers_are_refused() -> None:
    class Mute(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Flatten(), nn.Linear(3 * 32 * 32, 7))
            self.head_dist = nn.Identity()
            self.register_parameter("dist_token", nn.Parameter(torch.zeros(1)))

        def set_distilled_training(self, enable: bool = True) -> None:
            self.distilled_training = enable

    with pytest.raises(ValueError, match="expected two sets of logits in distilled training, found one"):
        distillation_head(Mute(), 32)


def test_a_model_of_two_heads_says_which_images_it_takes() -> None:
    levit = build_student("levit_128s", classes=7, seed=0)
    levit.require_size(224)
    with pytest.raises(
        ValueError, match="expected one for views of 64 pixels, found one for 224; add `model_kwargs=img_size=64`"
    ):
        levit.require_size(64)
    build_student("levit_128s", classes=7, seed=0, img_size=64).require_size(64)
    with pytest.raises(ValueError, match="found one for 299; name another `model`, or `image_size=299`"):
        build_student("inception_v4", classes=7, seed=0, drop_path=0.0).require_size(32)
    build_student("swiftformer_xs", classes=7, seed=0).require_size(64)
    with pytest.raises(ValueError, match="model efficientformer_l1: expected a model that takes 64 x 64 pixels"):
        build_student("efficientformer_l1", classes=7, seed=0, img_size=64)


def test_a_compiled_student_answers_alike() -> None:
    student = build_student("pit_ti_distilled_224", classes=7, seed=0)
    compiled: Any = torch.compile(student, backend="eager")
    for mode in (True, False):
        compiled.train(mode)
        assert student.training == mode and len(compiled(IMAGES)) == 2


def test_a_student_of_another_family_is_trained_evaluated_and_compared(
    store: Store, shards: str, tmp_path: Path
) -> None:
    given = ("--shards", shards, "--out", tmp_path / "out", "--model", "levit_128s", "--model-kwargs", "img_size=32")
    run_of = ("--epochs", 1, "--warmup-epochs", 0, "--batch-size", 8, "--device", "cpu", "--val-shards", shards)
    done = run("train-student", *given, "--cache", store.path, *run_of)
    assert done.exit_code == 0 and "student top-1, both heads" in done.output, done.output
    done = run("compare", tmp_path / "out", "--shards", shards, "--device", "cpu", "--json")
    compared = json.loads(done.output[done.output.index("{") :])
    assert compared["names"][1:] == [f"{tmp_path / 'out'} {head}" for head in ("class", "distill", "both")]
    assert compared["token_similarity"] == {}


def test_a_teacher_of_two_heads_answers_by_the_one_that_was_trained(shards: str, tmp_path: Path) -> None:
    given = ("--shards", shards, "--out", tmp_path / "t", "--model", "levit_128s", "--epochs", 1, "--batch-size", 8)
    done = run("train-teacher", *given, "--image-size", 224, "--device", "cpu")
    assert done.exit_code == 0, done.output
    weights = load_file(tmp_path / "t" / "model.safetensors")
    assert not weights["head_dist.linear.weight"].any() and weights["head.linear.weight"].any()
