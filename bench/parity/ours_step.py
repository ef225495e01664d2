"""Whole training steps of `Training`: ours, beside the published engine.py."""

import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from comparison import Comparison, Row, joined, relative
from ours_training import CASES, SMOOTHING

from distillcache.models.students import Student, build_student
from distillcache.replay.batches import Batch, Replay
from distillcache.replay.targets import mixed_target
from distillcache.runtime.inputs import normalize
from distillcache.runtime.signals import StopSignals
from distillcache.train.config import Config, Place
from distillcache.train.loop import Run, Training

SIZE, CLASSES, BATCH, STEPS = 64, 100, 16, 1
LR = 5e-4
CLEAR = 1e-6
"""Below it, Adam's first step makes whole learning rates of what rounding leaves of a gradient that is zero."""


def steps() -> Comparison:
    """Compare an epoch of one prepared batch: same weights, views, targets and labels; float32, one thread."""
    torch.manual_seed(0)
    batches = [batch() for _ in range(STEPS)]
    students = [build_student(case["model"], classes=CLASSES, seed=0, drop_path=0.0, img_size=SIZE) for case in CASES]
    weights = [{n: w.detach().clone() for n, w in student.model.state_dict().items()} for student in students]

    def rows(theirs: dict[str, Any]) -> list[Row]:
        compared = []
        for case, student, before, published in zip(CASES, students, weights, theirs["step"], strict=True):
            kind, start = case["distill"], joined(before[name] for name, _ in student.model.named_parameters())
            with torch.no_grad():
                heads = student.eval()(batches[0].images)
            loss, parameters = trained(student, case, batches), list(student.model.parameters())
            clear = published["gradient"].abs() > CLEAR
            moved, theirs_moved = joined(parameters) - start, published["weights"] - start
            what = f"{kind}, change of the {100 * float(clear.double().mean()):.1f}% of weights with a clear gradient"
            compared += [
                relative(f"{kind}, loss", loss, published["loss"]),
                relative(f"{kind}, gradients", joined(w.grad for w in parameters), published["gradient"], at_most=5e-6),
                relative(what, moved[clear], theirs_moved[clear], at_most=2e-6),
                relative(
                    f"{kind}, logits before it, in evaluation",
                    sum(heads) / len(heads),
                    published["logits"],
                    at_most=5e-6,
                ),
            ]
        return compared

    student = students[-1]
    theirs = [
        {
            "images": normalize(one.images, student.mean, student.std),
            "target": mixed_target(one.target, one.partner, one.lam, CLASSES, SMOOTHING),
            "teacher": one.teacher_logits,
        }
        for one in batches
    ]
    cases = [{**case, "weights": before} for case, before in zip(CASES, weights, strict=True)]
    return Comparison(
        name="training step", ask={"step": {"cases": cases, "batches": theirs, "size": SIZE, "lr": LR}}, rows=rows
    )


def batch() -> Batch:
    """Return a mixed batch of noise, with all of a teacher's logits."""
    logits = (3 * torch.randn(BATCH, CLASSES)).log_softmax(1).half().float()
    target = torch.randint(CLASSES, (BATCH,))
    return Batch(
        images=torch.randint(256, (BATCH, SIZE, SIZE, 3), dtype=torch.uint8),
        target=target,
        partner=target.flip(0),
        lam=torch.rand(BATCH // 2).repeat(2),
        label=logits.argmax(1),
        teacher_logits=logits,
    )


class Given:
    """Stands in for a `Replay` whose epoch is some given batches."""

    def steps(self, epoch: int) -> int:
        return STEPS


def trained(student: Student, case: dict[str, Any], batches: list[Batch]) -> torch.Tensor:
    """Train `student` for an epoch of `batches` and return its mean loss."""
    config = Config(
        model=case["model"],
        classes=CLASSES,
        size=SIZE,
        data="",
        distill=case["distill"],
        alpha=case["alpha"],
        tau=case["tau"],
        smoothing=SMOOTHING,
        drop_path=0.0,
        batch_size=BATCH,
        warmup_epochs=0,
        lr=LR * 512 / BATCH,
    )
    with tempfile.TemporaryDirectory() as folder, StopSignals(held=True) as signals:
        place = Place(device=torch.device("cpu"), workers=0, out=Path(folder))
        replay = cast(Replay, Given())
        training = Training(
            Run(student=student, replay=replay, config=config, place=place, held_out=None, trained_on={}), signals
        )
        training.train_epoch(0, iter(batches))
        return torch.tensor(training.progress.loss_sum / STEPS)
