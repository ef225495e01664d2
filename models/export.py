"""Trained students as other programs load them: timm's local-dir form, transformers' DeiT, and ONNX."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from ..runtime.errors import InputError
from ..runtime.optional import optional
from .students import Student
from .teachers import save_teacher

_BLOCK = {  # timm's names inside a block, and transformers', of its version 5 and of those before
    "norm1": ("layernorm_before", "layernorm_before"),
    "norm2": ("layernorm_after", "layernorm_after"),
    "attn.proj": ("attention.o_proj", "attention.output.dense"),
    "attn.q": ("attention.q_proj", "attention.attention.query"),
    "attn.k": ("attention.k_proj", "attention.attention.key"),
    "attn.v": ("attention.v_proj", "attention.attention.value"),
    "mlp.fc1": ("mlp.fc1", "intermediate.dense"),
    "mlp.fc2": ("mlp.fc2", "output.dense"),
}
_OUTSIDE = {
    "cls_token": "deit.embeddings.cls_token",
    "dist_token": "deit.embeddings.distillation_token",
    "pos_embed": "deit.embeddings.position_embeddings",
    "patch_embed.proj": "deit.embeddings.patch_embeddings.projection",
    "norm": "deit.layernorm",
    "head": "cls_classifier",
    "head_dist": "distillation_classifier",
}


def to_timm(
    student: Student,
    folder: Path,
    *,
    architecture: str,
    model_kwargs: dict[str, Any],
    crop_pct: float,
    class_names: Sequence[str] = (),
) -> None:
    """Write a student to `folder` as `timm.create_model("local-dir:FOLDER", pretrained=True)` loads it."""
    if not hasattr(student.model, "pretrained_cfg"):
        raise InputError("`to`", "a model of timm's", type(student.model).__name__, "name `to=onnx`")
    size = student.image_size
    save_teacher(
        student.model, folder, name=architecture, size=size, class_names=class_names, model_args=model_kwargs,
        crop_pct=crop_pct,
    )  # fmt: skip


def to_transformers(student: Student, folder: Path, *, crop_pct: float, class_names: Sequence[str] = ()) -> None:
    """Write a student to `folder` as `DeiTForImageClassificationWithTeacher.from_pretrained(FOLDER)` loads it.

    Raises InputError for a student that is no DeiT with a distillation token, and where transformers is not installed.
    """
    transformers = optional("transformers", extra="examples", where="`to`")
    model: Any = student.model
    if not student.has_distillation_token or not isinstance(model, VisionTransformerDistilled) or model.no_embed_class:
        expected = "a DeiT with a distillation token, which is all that transformers has"
        remedy = "name `to=timm` or `to=onnx`" if hasattr(model, "pretrained_cfg") else "name `to=onnx`"
        raise InputError("`to`", expected, type(model).__name__, remedy)
    transformers.utils.logging.disable_progress_bar()
    names = class_names or [f"LABEL_{number}" for number in range(student.classes)]
    block = model.blocks[0]
    config = transformers.DeiTConfig(
        hidden_size=model.embed_dim, num_hidden_layers=len(model.blocks), num_attention_heads=block.attn.num_heads,
        intermediate_size=block.mlp.fc1.out_features, image_size=student.image_size,
        patch_size=model.patch_embed.patch_size[0], id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)}, layer_norm_eps=model.norm.eps,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    theirs = transformers.DeiTForImageClassificationWithTeacher(config)
    theirs.load_state_dict(_as_transformers_has_them(model.state_dict(), theirs.state_dict().keys()))
    theirs.save_pretrained(folder)
    crop = {"height": student.image_size, "width": student.image_size}
    processor = {  # resizes the shorter side and cuts the middle out, as timm does, which DeiT's own does not
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "resample": 3, "do_convert_rgb": True,
        "size": {"shortest_edge": int(student.image_size / crop_pct)},
        "do_center_crop": True, "crop_size": crop, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": student.mean.tolist(), "image_std": student.std.tolist(),
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def _as_transformers_has_them(weights: dict[str, torch.Tensor], names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return timm's weights by transformers' `names`: attention's query, key and value apart."""
    layers = next(name for name in names if name.endswith("layernorm_before.weight")).rpartition(".0.")[0]
    version = 0 if any("q_proj" in name for name in names) else 1
    found = {}
    for name, value in weights.items():
        module, _, kind = name.rpartition(".") if name.endswith((".weight", ".bias")) else (name, "", "")
        suffix = f".{kind}" if kind else ""
        if not (inside := re.fullmatch(r"blocks\.(\d+)\.(.+)", module)):
            found[_OUTSIDE[module] + suffix] = value
            continue
        number, part = inside.groups()
        parts = zip("qkv", value.chunk(3), strict=True) if part == "attn.qkv" else [("", value)]
        for letter, tensor in parts:
            here = _BLOCK[f"attn.{letter}" if letter else part][version]
            found[f"{layers}.{number}.{here}{suffix}"] = tensor.contiguous()
    return found


class _Heads(nn.Module):
    """A student that takes normalised images, and always answers with all its heads."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self._model, self._heads = student.model, len(student.heads)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the logits of each head."""
        logits = self._model(images)
        return cast(tuple[torch.Tensor, ...], logits[: self._heads]) if isinstance(logits, tuple) else (logits,)


def to_onnx(student: Student, file: Path) -> None:
    """Write a student as an ONNX program: from `images`, float32 (n, 3, size, size), normalised, to each head's logits.

    n is free. The outputs are named as the heads. Raises InputError where onnx is not installed.
    """
    for module in ("onnx", "onnxscript"):
        optional(module, extra="onnx", where="`to`")
    heads = _Heads(student.eval())
    heads.training = False
    images = torch.zeros(2, 3, student.image_size, student.image_size)
    torch.onnx.export(
        heads, (images,), str(file), input_names=["images"], output_names=list(student.heads),
        dynamic_shapes={"images": {0: torch.export.Dim("n")}}, dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
