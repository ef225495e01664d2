"""How fast a student trains on views that are ready: what the device allows, without stores or rendering."""

import time

import torch

from ..replay.targets import mixed_target
from .config import Config
from .loss import distillation_loss
from .optimizer import optimizer_and_schedule, undecayed
from .student import Student

_WARM = 2


def images_per_second(student: Student, config: Config, device: torch.device, *, seconds: float) -> float:
    """Return how many images a second `student`, which is on `device`, trains in steps of the batches of `config`."""
    optimizer, set_rate = optimizer_and_schedule(student.model, config, undecayed(student.model))
    set_rate(config.warmup_epochs)
    shape = (config.batch_size, config.size, config.size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    target = torch.randint(0, config.classes, (config.batch_size,), device=device)
    mixed = mixed_target(target, target.flip(0), torch.full((len(target),), 0.7, device=device), config.classes, 0.1)
    student.train()
    steps, began = 0, 0.0
    while steps <= _WARM or time.monotonic() - began < seconds:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.amp):
            logits = student(images)
        losses = distillation_loss(logits, mixed, target, distill="hard", alpha=0.5, tau=1.0)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        float(losses.total.detach())  # waits for the device
        steps += 1
        if steps == _WARM:
            began = time.monotonic()
    return (steps - _WARM) * config.batch_size / (time.monotonic() - began)
