"""What DeiT's own main.py, losses.py and options do, run beside what we do."""

import argparse
import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from timm.data.mixup import mixup_target
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer
from timm.scheduler import create_scheduler
from torch import nn

from distillcache.models.students import build_student
from distillcache.replay.logits import from_topk
from distillcache.replay.targets import mixed_target
from distillcache.train.config import Config
from distillcache.train.loss import distillation_loss, soft_cross_entropy
from distillcache.train.optimizer import optimizer_and_schedule

CLASSES = 7
OPTIONS = argparse.Namespace(  # the defaults of DeiT's get_args_parser
    opt="adamw", opt_eps=1e-8, opt_betas=None, momentum=0.9, weight_decay=0.05, sched="cosine", lr=5e-4, epochs=300,
    lr_noise=None, lr_noise_pct=0.67, lr_noise_std=1.0, warmup_lr=1e-6, min_lr=1e-5, decay_epochs=30, warmup_epochs=5,
    cooldown_epochs=10, patience_epochs=10, decay_rate=0.1,
)  # fmt: skip


def published_loss(
    kind: str, outputs: torch.Tensor | tuple[torch.Tensor, ...], target: torch.Tensor, teacher: torch.Tensor,
    alpha: float, tau: float,
) -> float:  # fmt: skip
    """DeiT's DistillationLoss around timm's SoftTargetCrossEntropy, written out in float64 from its definition."""
    class_logits, token_logits = (outputs, outputs) if isinstance(outputs, torch.Tensor) else outputs
    x, kd, y, t = (values.double().numpy() for values in (class_logits, token_logits, target, teacher))

    def log_softmax(rows: np.ndarray) -> np.ndarray:
        shifted = rows - rows.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    base = float(np.mean(-(y * log_softmax(x)).sum(axis=1)))
    if kind == "none":
        return base
    if kind == "hard":
        rows = log_softmax(kd)
        distillation = -float(np.mean([row[label] for row, label in zip(rows, t.argmax(axis=1), strict=True)]))
    else:
        log_p, log_q = log_softmax(t / tau), log_softmax(kd / tau)
        distillation = float((np.exp(log_p) * (log_p - log_q)).sum()) * tau**2 / kd.size
    return base * (1 - alpha) + distillation * alpha


@pytest.mark.parametrize(
    ("kind", "alpha", "tau"), [("none", 0.5, 1.0), ("hard", 0.5, 1.0), ("soft", 0.1, 3.0), ("soft", 0.7, 1.5)]
)
@pytest.mark.parametrize("token", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_losses_are_the_published_ones(kind: str, alpha: float, tau: float, token: bool, seed: int) -> None:
    torch.manual_seed(seed)
    outputs = tuple(3 * torch.randn(8, CLASSES) for _ in range(2 if token else 1))
    target, teacher = torch.randn(8, CLASSES).softmax(1), 4 * torch.randn(8, CLASSES)
    said = teacher.argmax(1) if kind == "hard" else teacher.log_softmax(1)
    ours = distillation_loss(outputs, target, said, distill=kind, alpha=alpha, tau=tau).total
    theirs = published_loss(kind, outputs if token else outputs[0], target, teacher, alpha, tau)
    assert ours.item() == pytest.approx(theirs, abs=1e-6)


def test_targets_are_those_of_timms_mixup_and_label_smoothing() -> None:
    torch.manual_seed(0)
    target, logits = torch.randint(0, CLASSES, (6,)), torch.randn(6, CLASSES)
    mixed = mixed_target(target, target.flip(0), torch.full((6,), 0.3), CLASSES, 0.1)
    assert torch.allclose(mixed, mixup_target(target, CLASSES, 0.3, 0.1), atol=1e-6)
    assert soft_cross_entropy(logits, mixed).item() == pytest.approx(SoftTargetCrossEntropy()(logits, mixed).item())
    unmixed = mixed_target(target, target, torch.ones(6), CLASSES, 0.1)
    smoothed = LabelSmoothingCrossEntropy(smoothing=0.1)(logits, target)
    assert soft_cross_entropy(logits, unmixed).item() == pytest.approx(smoothed.item(), abs=1e-6)


def test_what_the_topk_leave_is_spread_evenly() -> None:
    torch.manual_seed(0)
    said = (4 * torch.randn(5, CLASSES)).log_softmax(1)
    value, index = said.topk(3)
    dense = from_topk(index, value, CLASSES)
    assert torch.allclose(dense.gather(1, index), value) and torch.allclose(
        dense.exp().sum(1), torch.ones(5), atol=1e-5
    )
    rest = dense.scatter(1, index, math.inf).sort(1).values[:, : CLASSES - 3]
    assert torch.allclose(rest, rest[:, :1].expand_as(rest)) and bool((rest <= value[:, -1:]).all())
    value, index = said.half().topk(CLASSES)
    assert torch.equal(from_topk(index, value, CLASSES), said.half().float())


@pytest.mark.parametrize(("epochs", "warmup", "batch_size"), [(300, 5, 1024), (30, 5, 512), (12, 0, 256)])
def test_every_epoch_has_deits_learning_rate(epochs: int, warmup: int, batch_size: int) -> None:
    """main.py's order: the optimizer's own rate, an epoch, scheduler.step(epoch), the next epoch."""
    peak = 5e-4 * batch_size / 512
    options = argparse.Namespace(**{**vars(OPTIONS), "lr": peak, "epochs": epochs, "warmup_epochs": warmup})
    optimizer = create_optimizer(options, nn.Linear(3, 3))
    scheduler, _ = create_scheduler(options, optimizer)
    theirs = []
    for epoch in range(epochs):
        theirs.append([group["lr"] for group in optimizer.param_groups])
        scheduler.step(epoch)
    config = Config(model="", classes=3, size=32, data="", epochs=epochs, warmup_epochs=warmup, batch_size=batch_size)
    optimizer, step = optimizer_and_schedule(nn.Linear(3, 3), config)
    ours = []
    for epoch in range(epochs):
        step(epoch)
        ours.append([group["lr"] for group in optimizer.param_groups])
    assert ours == theirs and len({rate for rates in ours for rate in rates}) > epochs - 3


@pytest.mark.parametrize("model", ["deit_tiny_distilled_patch16_224", "deit_tiny_patch16_224"])
def test_undecayed_are_vectors_class_token_and_positions(model: str) -> None:
    """As with the published code and timm 0.3.2 (`make parity` runs both); timm 1.0 spares `dist_token`, too."""
    student = build_student(model, classes=CLASSES, seed=0, depth=2).model
    names = {id(p): name for name, p in student.named_parameters()}

    def undecayed(optimizer: torch.optim.Optimizer) -> set[str]:
        plain = [group for group in optimizer.param_groups if not group["weight_decay"]]
        return {names[id(p)] for group in plain for p in group["params"]}

    ours, _ = optimizer_and_schedule(student, Config(model=model, classes=CLASSES, size=224, data=""))
    vectors = {name for name, weight in student.named_parameters() if weight.ndim == 1}
    assert undecayed(ours) == vectors | {"cls_token", "pos_embed"} and "head.bias" in vectors
    assert {group["weight_decay"] for group in ours.param_groups} == {0, 0.05}
    theirs = create_optimizer(OPTIONS, student)
    assert {type(ours), ours.defaults["eps"], ours.defaults["betas"]} == {type(theirs), 1e-8, (0.9, 0.999)}


@pytest.mark.parametrize("model", ["deit_tiny_distilled_patch16_224", "deit_tiny_patch16_224"])
def test_tokens_start_as_published(model: str, tmp_path: Path) -> None:
    """trunc_normal_(std=.02), in timm 0.3.2's models; timm 1.0 starts the class token at 1e-6."""
    student = build_student(model, classes=CLASSES, seed=0, depth=1).model
    for name in {"cls_token", "dist_token", "pos_embed"} & student.state_dict().keys():
        assert 0.016 < float(student.get_parameter(name).detach().std()) < 0.024, name
    weights = {**student.state_dict(), "cls_token": torch.full_like(student.cls_token, 0.5)}
    torch.save(weights, tmp_path / "trained.pth")
    trained = build_student(model, classes=CLASSES, seed=0, depth=1, checkpoint_path=str(tmp_path / "trained.pth"))
    assert bool((trained.model.cls_token == 0.5).all()), "weights that are loaded stay"


def test_position_embeddings_are_resized_as_deits_finetuning_does() -> None:
    """main.py's lines on `--finetune`, beside ours, for a student with its distillation token."""
    name = "deit_tiny_distilled_patch16_224"
    small = build_student(name, classes=CLASSES, seed=1, depth=1, img_size=96)
    large = build_student(name, classes=CLASSES, seed=2, depth=1, img_size=160)
    checkpoint = small.model.state_dict()["pos_embed"]
    extra, patches = checkpoint[:, :2], checkpoint[:, 2:]
    patches = patches.reshape(-1, 6, 6, 192).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, size=(10, 10), mode="bicubic", align_corners=False)
    expected = torch.cat((extra, patches.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)
    assert large.initialize(small.model.state_dict(), "small") == []
    assert torch.allclose(large.model.state_dict()["pos_embed"], expected, atol=1e-6)
    for kept in ("dist_token", "cls_token", "head_dist.weight", "head.bias"):
        assert torch.equal(large.model.state_dict()[kept], small.model.state_dict()[kept])


def test_both_heads_are_averaged_as_timm_does() -> None:
    student = build_student("deit_tiny_distilled_patch16_224", classes=CLASSES, seed=0, depth=1, img_size=32).eval()
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(student.model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    plain: nn.Module = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=CLASSES, depth=1, img_size=32)
    plain.load_state_dict(student.model.state_dict())
    with torch.no_grad():
        average = plain.eval()((images.permute(0, 3, 1, 2) / 255 - mean) / std)
        assert torch.allclose(sum(student(images)) / 2, average, atol=1e-5)
        student.silence_distillation_head()
        plain.load_state_dict(student.model.state_dict())
        alone = plain((images.permute(0, 3, 1, 2) / 255 - mean) / std)
        assert student.heads == ("class",) and torch.allclose(student(images)[0] / 2, alone, atol=1e-5)
