"""The published side: answers what `ours` asks, with the published code and nothing of ours.

    PYTHONPATH=BESIDE:DEIT python published.py ASKED ANSWERED

BESIDE holds timm 0.3.2 and Pillow 9.5, DEIT is the checkout. Both files are `torch.save`d dicts, by comparison.
"""

import collections.abc
import functools
import random
import sys
import types
import warnings

import numpy as np
import torch

warnings.filterwarnings("ignore")


def make_old_timm_run() -> None:
    """Give timm 0.3.2 and engine.py what torch had then: `torch._six`, and CUDA calls that do no harm on a CPU."""
    six = types.ModuleType("torch._six")
    six.container_abcs = collections.abc
    sys.modules["torch._six"] = six
    torch.cuda.synchronize = lambda device=None: None
    from timm.data import mixup

    mixup.mixup_target = functools.partial(mixup.mixup_target, device="cpu")


def main(asked_file: str, answered_file: str) -> None:
    make_old_timm_run()
    import published_training
    import published_views

    answers = {**published_training.ANSWERS, **published_views.ANSWERS}
    torch.set_num_threads(1)
    answered = {}
    for name, asked in torch.load(asked_file, weights_only=True).items():
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        answered[name] = answers[name](**asked)
    torch.save(answered, answered_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
