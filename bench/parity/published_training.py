"""What the published code says of losses, optimiser, models and steps: see `published`."""

from argparse import Namespace
from collections.abc import Iterable
from typing import Any

import PIL
import timm
import torch
from engine import train_one_epoch
from losses import DistillationLoss
from main import get_args_parser
from timm.data.mixup import mixup_target
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.models import create_model
from timm.optim import create_optimizer
from timm.scheduler import create_scheduler
from timm.utils import NativeScaler
from torch import nn

Tensors = dict[str, torch.Tensor]


def options(**changes: Any) -> Namespace:
    """Return the defaults of main.py, with changes."""
    return Namespace(**{**vars(get_args_parser().parse_args([])), **changes})


def defaults() -> dict[str, Any]:
    return {"timm": timm.__version__, "pillow": PIL.__version__, **vars(options())}


def student(name: str, classes: int, size: int, drop_path: float = 0.1) -> nn.Module:
    """Build a model as main.py does."""
    return create_model(
        name,
        pretrained=False,
        num_classes=classes,
        drop_rate=0.0,
        drop_path_rate=drop_path,
        drop_block_rate=None,
        img_size=size,
    )


class StoredTeacher(nn.Module):
    """Says of each batch, one after the other, what is stored of it."""

    def __init__(self, logits: list[torch.Tensor]) -> None:
        super().__init__()
        self.logits = iter(logits)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return next(self.logits)


def losses(
    cases: list[dict[str, Any]], outputs: list[torch.Tensor], target: torch.Tensor, teacher: torch.Tensor
) -> list[Tensors]:
    """Return the loss of each case, and its gradients with respect to both heads' logits."""
    answers = []
    for case in cases:
        heads = tuple(logits.clone().requires_grad_() for logits in outputs)
        loss = DistillationLoss(
            SoftTargetCrossEntropy(), StoredTeacher([teacher]), case["distill"], case["alpha"], case["tau"]
        )(None, heads, target)
        loss.backward()
        gradients = [torch.zeros_like(head) if head.grad is None else head.grad for head in heads]
        answers.append({"loss": loss.detach(), "gradient": torch.stack(gradients)})
    return answers


def targets(target: torch.Tensor, logits: torch.Tensor, lam: float, classes: int, smoothing: float) -> Tensors:
    return {
        "mixed": mixup_target(target, classes, lam, smoothing, device="cpu"),
        "smoothed": LabelSmoothingCrossEntropy(smoothing=smoothing)(logits, target),
    }


def optimizer(weights: Tensors, gradients: list[Tensors], lr: float) -> Tensors:
    """Return the weights of a small network after a step with each of `gradients`."""
    model = nn.Sequential(nn.Linear(16, 24), nn.LayerNorm(24), nn.Linear(24, 8))
    model.load_state_dict(weights)
    stepped = create_optimizer(options(lr=lr), model)
    for step in gradients:
        for name, weight in model.named_parameters():
            weight.grad = step[name].clone()
        stepped.step()
    return model.state_dict()


def schedule(runs: list[dict[str, Any]]) -> list[list[float]]:
    """Return every epoch's learning rate of each run, in the order of main.py's loop."""
    answers = []
    for run in runs:
        stepped = create_optimizer(options(**run), nn.Linear(3, 3))
        scheduler, _ = create_scheduler(options(**run), stepped)
        rates = []
        for epoch in range(run["epochs"]):
            rates.append(stepped.param_groups[0]["lr"])
            scheduler.step(epoch)
        answers.append(rates)
    return answers


def groups(models: list[str]) -> list[dict[str, float]]:
    """Return the weight decay of every parameter of each model."""
    answers = []
    for name in models:
        model = student(name, 1000, 224)
        names = {id(weight): parameter for parameter, weight in model.named_parameters()}
        grouped = create_optimizer(options(), model).param_groups
        answers.append({names[id(w)]: group["weight_decay"] for group in grouped for w in group["params"]})
    return answers


def initialisation(model: str, seeds: int) -> dict[str, list[float]]:
    """Return of every parameter the sum, the sum of squares and the number of its values, over all seeds.

    Without the -2 that `trunc_normal_` makes of one value in 2**24, which would be half of a sum of squares.
    """
    sums: dict[str, torch.Tensor] = {}
    for seed in range(seeds):
        torch.manual_seed(1000 + seed)
        for name, weight in student(model, 1000, 224).named_parameters():
            values = weight.detach().double()
            values = values[values > -2]
            moments = torch.stack([values.sum(), values.square().sum(), torch.tensor(float(values.numel())).double()])
            sums[name] = sums.get(name, 0) + moments
    return {name: moments.tolist() for name, moments in sums.items()}


def step(cases: list[dict[str, Any]], batches: list[Tensors], size: int, lr: float) -> list[Tensors]:
    """Return what engine.py makes of each case's weights in an epoch of `batches`, with the teacher as stored."""
    answers = []
    for case in cases:
        model, args = student(case["model"], batches[0]["target"].shape[1], size, drop_path=0.0), options(lr=lr)
        model.load_state_dict(case["weights"])
        teacher = StoredTeacher([batch["teacher"] for batch in batches])
        criterion = DistillationLoss(SoftTargetCrossEntropy(), teacher, case["distill"], case["alpha"], case["tau"])
        with torch.no_grad():
            logits = model.eval()(batches[0]["images"])
        loader = [(batch["images"], batch["target"]) for batch in batches]
        stepped, device = create_optimizer(args, model), torch.device("cpu")
        epoch = train_one_epoch(model, criterion, loader, stepped, device, 0, NativeScaler(), args=args, max_norm=None)
        answers.append(
            {
                "loss": torch.tensor(epoch["loss"]),
                "gradient": joined(weight.grad for weight in model.parameters()),
                "weights": joined(model.parameters()),
                "logits": logits,
            }
        )
    return answers


def joined(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


ANSWERS = {
    "defaults": defaults,
    "losses": losses,
    "targets": targets,
    "optimiser": optimizer,
    "schedule": schedule,
    "groups": groups,
    "initialisation": initialisation,
    "step": step,
}
