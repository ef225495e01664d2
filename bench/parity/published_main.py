"""The published main.py, in one process on a CPU and for a folder of any classes: see `runs`.

    PYTHONPATH=BESIDE:DEIT python published_main.py OPTION...

What is changed: no CUDA; RASampler in a world of one process; as many classes as there are folders; two students of
`runs`' size; and no evaluation in between, as both sides are evaluated alike when they are done.
"""

import os
from functools import partial
from typing import Any

import published
import torch

published.make_old_timm_run()

import main as deit  # noqa: E402
from timm.models.registry import register_model  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from torch import nn  # noqa: E402

import models  # noqa: E402

SHAPE = {"patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 3}
"""Of the students, besides their 32 pixels."""


@register_model
def small_distilled(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return models.DistilledVisionTransformer(**arguments(kwargs))


@register_model
def small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return VisionTransformer(**arguments(kwargs))


def arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return what models.py gives its own models, with the shape of ours."""
    norm_layer = partial(nn.LayerNorm, eps=1e-6)
    return {**SHAPE, "mlp_ratio": 4, "qkv_bias": True, "norm_layer": norm_layer, **kwargs}


def alone(args: Any) -> None:
    """Stand in for utils.init_distributed_mode."""
    args.distributed, args.gpu = True, 0
    os.environ.update(MASTER_ADDR="127.0.0.1", RANK="0", WORLD_SIZE="1", MASTER_PORT=os.environ["PORT"])
    torch.distributed.init_process_group("gloo")


def dataset_and_classes(is_train: bool, args: Any) -> tuple[Any, int]:
    dataset, _ = build_dataset(is_train, args)
    return dataset, len(dataset.classes)


if __name__ == "__main__":
    torch.set_num_threads(1)
    build_dataset, parallel = deit.build_dataset, nn.parallel.DistributedDataParallel
    deit.build_dataset, deit.utils.init_distributed_mode = dataset_and_classes, alone
    deit.utils.SmoothedValue.synchronize_between_processes = lambda value: None  # it would use CUDA
    nn.parallel.DistributedDataParallel = lambda model, device_ids: parallel(model)
    deit.evaluate = lambda loader, model, device: {"acc1": 0.0}
    deit.main(deit.get_args_parser().parse_args())
