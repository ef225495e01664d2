"""Options, losses, optimiser, schedule and parameters: ours, beside `published_training`."""

import math
from typing import Any

import torch
from comparison import Comparison, Row, few, joined, relative
from torch import nn

from distillcache.datasets.augment.recipes import named
from distillcache.models.students import build_student
from distillcache.replay.targets import mixed_target
from distillcache.train.config import Config
from distillcache.train.loss import distillation_loss, soft_cross_entropy
from distillcache.train.optimizer import optimizer_and_schedule

TOKEN, PLAIN = "deit_tiny_distilled_patch16_224", "deit_tiny_patch16_224"
CASES = [
    {"distill": "none", "alpha": 0.5, "tau": 1.0, "model": PLAIN},
    {"distill": "soft", "alpha": 0.1, "tau": 3.0, "model": TOKEN},
    {"distill": "hard", "alpha": 0.5, "tau": 1.0, "model": TOKEN},
]
CLASSES, SMOOTHING = 1000, 0.1
SEEDS = 5


def config(**changes: Any) -> Config:
    return Config(**{"model": TOKEN, "classes": CLASSES, "size": 224, "data": "", **changes})


def defaults() -> Comparison:
    """Compare the options of main.py with ours."""
    c, r = config(), named("deit")
    same = {
        **{name: getattr(c, name) for name in ("epochs", "opt", "lr", "min_lr", "warmup_lr", "warmup_epochs")},
        **{name: getattr(c, name) for name in ("weight_decay", "smoothing", "drop_path")},
        "distillation_alpha": c.alpha,
        "clip_grad": c.clip_grad or None,
        "aa": f"rand-m{r.randaug_magnitude:g}-mstd{r.randaug_std:g}-inc1",
        "input_size": r.size,
        "reprob": r.erase_prob,
        "mixup": r.mixup_alpha,
        "cutmix": r.cutmix_alpha,
        "mixup_prob": r.mix_prob,
        "mixup_switch_prob": r.switch_prob,
        "eval_crop_ratio": c.crop_pct,
    }
    meant = {"model_ema_decay": c.ema_decay, "distillation_tau": c.tau, "batch_size": c.batch_size}

    def rows(theirs: dict[str, Any]) -> list[Row]:
        published = theirs["defaults"]
        differing = [name for name, value in same.items() if published[name] != value]
        said = [name for name, value in meant.items() if published[name] != value]
        texts = (", ".join(f"{values[name]:g}" for name in meant) for values in (meant, published))
        what = "EMA's decay, temperature, batch size (theirs: of a process)"
        n = len(same)
        return [
            Row(what=f"{n} options of main.py", difference=len(differing), where=few(differing)),
            Row(
                what=what,
                **dict(zip(("ours", "theirs"), texts, strict=True)),
                difference=len(said),
                at_most=3,
                said=True,
            ),
        ]

    return Comparison(name="defaults", ask={"defaults": {}}, rows=rows)


def losses() -> Comparison:
    """Compare each distillation's loss and its gradients at both heads, and the targets."""
    torch.manual_seed(0)
    n, lam = 64, 0.3
    target, outputs = torch.randint(CLASSES, (n,)), [3 * torch.randn(n, CLASSES) for _ in range(2)]
    teacher = 4 * torch.randn(n, CLASSES)
    mixed = mixed_target(target, target.flip(0), torch.full((n,), lam), CLASSES, SMOOTHING)
    unmixed = mixed_target(target, target, torch.ones(n), CLASSES, SMOOTHING)

    def rows(theirs: dict[str, Any]) -> list[Row]:
        compared = []
        for case, published in zip(CASES, theirs["losses"], strict=True):
            heads = tuple(logits.clone().requires_grad_() for logits in outputs)
            kind, said = case["distill"], teacher.argmax(1) if case["distill"] == "hard" else teacher
            loss = distillation_loss(heads, mixed, said, distill=kind, alpha=case["alpha"], tau=case["tau"]).total
            loss.backward()
            gradient = torch.stack([torch.zeros_like(h) if h.grad is None else h.grad for h in heads])
            compared += [
                relative(f"{kind}, loss", loss, published["loss"]),
                relative(f"{kind}, gradients at the heads", gradient, published["gradient"]),
            ]
        smoothed = soft_cross_entropy(outputs[0], unmixed)
        return [
            *compared,
            relative("mixed and smoothed target", mixed, theirs["targets"]["mixed"]),
            relative("smoothed target, unmixed, loss", smoothed, theirs["targets"]["smoothed"]),
        ]

    cases = {"cases": CASES, "outputs": outputs, "target": mixed, "teacher": teacher}
    targets = {"target": target, "logits": outputs[0], "lam": lam, "classes": CLASSES, "smoothing": SMOOTHING}
    return Comparison(name="losses", ask={"losses": cases, "targets": targets}, rows=rows)


def optimiser() -> Comparison:
    """Compare five AdamW steps with given gradients."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.LayerNorm(24), nn.Linear(24, 8))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    gradients = [{name: torch.randn_like(w) for name, w in model.named_parameters()} for _ in range(5)]
    c = config(batch_size=512, warmup_epochs=0)

    def rows(theirs: dict[str, Any]) -> list[Row]:
        stepped, _ = optimizer_and_schedule(model, c)
        for step in gradients:
            for name, weight in model.named_parameters():
                weight.grad = step[name].clone()
            stepped.step()
        ours, published = (
            joined(weights[name] - before[name] for name in before)
            for weights in (model.state_dict(), theirs["optimiser"])
        )
        return [relative("5 steps of AdamW, change of the weights", ours, published)]

    asked = {"weights": before, "gradients": gradients, "lr": c.scaled_lr}
    return Comparison(name="optimiser", ask={"optimiser": asked}, rows=rows)


def schedule() -> Comparison:
    """Compare every epoch's learning rate."""
    configs = [
        config(epochs=e, warmup_epochs=w, batch_size=b) for e, w, b in ((300, 5, 1024), (30, 5, 512), (12, 0, 256))
    ]

    def rows(theirs: dict[str, Any]) -> list[Row]:
        compared = []
        for c, published in zip(configs, theirs["schedule"], strict=True):
            optimizer, set_rate = optimizer_and_schedule(nn.Linear(3, 3), c)
            ours = []
            for epoch in range(c.epochs):
                set_rate(epoch)
                ours.append(optimizer.param_groups[0]["lr"])
            what = f"{c.epochs} learning rates, {c.warmup_epochs} epochs of warm-up"
            distance = max(abs(a - b) / b for a, b in zip(ours, published, strict=True))
            compared.append(
                Row(what=what, ours=f"{max(ours):.6g}", theirs=f"{max(published):.6g}", difference=distance)
            )
        return compared

    runs = [{"epochs": c.epochs, "warmup_epochs": c.warmup_epochs, "lr": c.scaled_lr} for c in configs]
    return Comparison(name="schedule", ask={"schedule": {"runs": runs}}, rows=rows)


def groups() -> Comparison:
    """Compare which parameters get how much weight decay."""
    models = [TOKEN, PLAIN]

    def rows(theirs: dict[str, Any]) -> list[Row]:
        compared = []
        for name, published in zip(models, theirs["groups"], strict=True):
            model = build_student(name, classes=CLASSES, seed=0).model
            names = {id(weight): parameter for parameter, weight in model.named_parameters()}
            grouped = optimizer_and_schedule(model, config(model=name))[0].param_groups
            ours = {names[id(weight)]: group["weight_decay"] for group in grouped for weight in group["params"]}
            differing = sorted(n for n in ours | published if ours.get(n) != published.get(n))
            texts = (
                f"{sum(not decay for decay in by_name.values())} of {len(by_name)}" for by_name in (ours, published)
            )
            compared.append(
                Row(
                    what=f"no weight decay, {name}",
                    **dict(zip(("ours", "theirs"), texts, strict=True)),
                    difference=len(differing),
                    where=few(differing),
                )
            )
        return compared

    return Comparison(name="parameter groups", ask={"groups": {"models": models}}, rows=rows)


def initialisation() -> Comparison:
    """Compare mean and standard deviation of every parameter over some seeds, in standard errors."""

    def rows(theirs: dict[str, Any]) -> list[Row]:
        sums: dict[str, list[list[float]]] = {}
        for seed in range(SEEDS):
            for name, weight in build_student(TOKEN, classes=CLASSES, seed=seed).model.named_parameters():
                values = weight.detach().double()
                values = values[values > -2]
                sums.setdefault(name, []).append([float(values.sum()), float(values.square().sum()), values.numel()])
        ours = {name: [sum(column) for column in zip(*moments, strict=True)] for name, moments in sums.items()}
        published = theirs["initialisation"]
        assert ours.keys() == published.keys()
        z = {name: standard_errors(ours[name], published[name]) for name in ours}
        return [_worst(i, what, z, ours, published) for i, what in enumerate(("mean", "standard deviation"))]

    return Comparison(name="initialisation", ask={"initialisation": {"model": TOKEN, "seeds": SEEDS}}, rows=rows)


def moments(sums: list[float]) -> tuple[float, float]:
    """Return mean and standard deviation from sum, sum of squares and number."""
    mean = sums[0] / sums[2]
    return mean, math.sqrt(max(sums[1] / sums[2] - mean**2, 0.0))


def standard_errors(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """Return how many standard errors two means and two standard deviations lie apart."""
    (mean, sd), (their_mean, their_sd) = moments(ours), moments(theirs)
    error = math.sqrt((sd**2 + their_sd**2) / ours[2])
    apart = (abs(mean - their_mean), abs(sd - their_sd) * math.sqrt(2))
    return tuple(distance / error if error else 0.0 if distance == 0 else math.inf for distance in apart)


def _worst(i: int, what: str, z: dict[str, tuple[float, float]], ours: Any, theirs: Any, bound: float = 5.0) -> Row:
    name = max(z, key=lambda parameter: z[parameter][i])
    beyond = [parameter for parameter in z if z[parameter][i] > bound]
    return Row(
        what=f"{what}, {SEEDS} seeds, worst of {len(z)} parameters: {name}",
        ours=f"{moments(ours[name])[i]:.3g}",
        theirs=f"{moments(theirs[name])[i]:.3g}",
        difference=z[name][i],
        unit=" s.e.",
        where=few(beyond),
        at_most=bound,
    )
