"""Teachers by name: timm's and Hugging Face's models, exported programs, what one's own code returns, and several."""

import hashlib
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..runtime.devices import find_device
from ..runtime.errors import InputError
from ..runtime.optional import optional
from ..runtime.own_code import is_own
from ..runtime.quiet import quiet
from .own_teachers import as_teacher, ensemble, placed, teacher_of_code
from .teachers import Teacher, timm_teacher

HUGGING_FACE = "hf://"
_NOTES = "teacher.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wish:
    """How a teacher is to compute."""

    device: torch.device
    amp: bool
    size: int | None
    compiled: bool


def load_teacher(
    name: str | Sequence[str],
    *,
    device: torch.device | str = "cpu",
    amp: bool | None = None,
    size: int | None = None,
    compiled: bool = False,
) -> Teacher:
    """Return the teacher of a name, or of several names the ensemble.

    A name is timm's (`regnety_160.deit_in1k`); a folder in timm's form, as train-teacher writes it; `hf://USER/NAME` or
    `hf://FOLDER`, an image classifier of Hugging Face's transformers; `FILE.pt2`, a program of torch.export with
    `teacher.json` (mean, std) in its extra files; or `MODULE:FUNCTION`, which returns a teacher.

    Args:
        name: One or several.
        device: Where it computes: `cpu`, `cuda`, `cuda:1`, `auto`; of several ranks each has its own GPU.
        amp: Whether under bfloat16 autocast; by default on a GPU.
        size: Height and width at which it sees views, pixels; by default those it was made for.
        compiled: Whether torch.compile makes it faster first.

    Raises:
        InputError: A ValueError, one line of text: if there is no such teacher, its weights can't be had, or it takes
            one size only and that is another.
    """
    names, place = [name] if isinstance(name, str) else list(name), find_device(device)
    amp = place.type == "cuda" if amp is None else amp
    wish = _Wish(device=place, amp=amp, size=size, compiled=compiled)
    if len(names) == 1:
        return _one(names[0], wish)
    return ensemble([_one(each, wish) for each in names])


def _one(name: str, wish: _Wish) -> Teacher:
    if is_own(name):
        teacher = teacher_of_code(name)
    elif name.startswith(HUGGING_FACE):
        teacher = _of_hugging_face(name)
    elif name.endswith(".pt2"):
        teacher = _of_a_program(name)
    else:
        return timm_teacher(name, device=wish.device, amp=wish.amp, size=wish.size, compiled=wish.compiled)
    return placed(teacher, wish.device, amp=wish.amp, size=wish.size, compiled=wish.compiled)


def _of_hugging_face(name: str) -> Teacher:
    transformers = optional("transformers", extra="examples", where=f"teacher {name}")
    transformers.utils.logging.disable_progress_bar()
    source = name.removeprefix(HUGGING_FACE)
    try:
        with quiet("huggingface_hub"):
            model = transformers.AutoModelForImageClassification.from_pretrained(source)
            processor: dict[str, Any] = transformers.AutoImageProcessor.from_pretrained(source).to_dict()
    except Exception as error:  # transformers and the hub raise whatever a name, a file or the network makes them
        reason = f"an error: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise InputError(f"teacher {name}", "an image classifier of transformers'", reason) from error
    crop, resized = processor.get("crop_size") or {}, processor["size"]
    side = crop if processor.get("do_center_crop") and crop else resized
    size = int(side.get("height") or side.get("shortest_edge") or model.config.image_size)
    shortest = int(resized.get("shortest_edge") or resized.get("height") or size)
    names = [model.config.id2label[number] for number in range(model.config.num_labels)]
    return as_teacher(
        model,
        name=name,
        classes=len(names),
        input_size=size,
        mean=processor["image_mean"],
        std=processor["image_std"],
        class_names=() if all(re.fullmatch(r"LABEL_\d+", each) for each in names) else names,
        crop_pct=min(1.0, size / shortest),
    )


def _of_a_program(name: str) -> Teacher:
    if not Path(name).is_file():
        raise InputError(f"teacher {name}", "a program that torch.export saved", "no file of that name")
    notes = {_NOTES: ""}
    try:
        with quiet("torch.export"), warnings.catch_warnings(action="ignore"):
            program = torch.export.load(name, extra_files=notes)
        digest = hashlib.sha256(Path(name).read_bytes()).hexdigest()
    except Exception as error:  # torch raises whatever a file makes it
        reason = f"an error: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise InputError(f"teacher {name}", "a program that torch.export saved", reason) from error
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    images, logits = nodes[signature.user_inputs[0]], nodes[signature.user_outputs[0]]
    if isinstance(images.shape[0], int):
        remedy = "export it with dynamic_shapes={0: torch.export.Dim('n')} of its images"
        raise InputError(f"teacher {name}", "a program for any number of images", f"one for {images.shape[0]}", remedy)
    try:
        told = json.loads(notes[_NOTES])
        mean, std = told["mean"], told["std"]
    except (ValueError, KeyError, TypeError) as error:
        found = "neither" if not notes[_NOTES] else repr(notes[_NOTES][:60])
        remedy = f"save it with extra_files={{'{_NOTES}': json.dumps({{'mean': [...], 'std': [...]}})}}"
        raise InputError(f"teacher {name}", f"mean and std in its {_NOTES}", found, remedy) from error
    return as_teacher(
        program.module(),
        name=Path(name).name,
        classes=int(logits.shape[-1]),
        input_size=int(images.shape[-1]),
        mean=mean,
        std=std,
        sha256=digest,
        class_names=told.get("class_names", ()),
    )
