"""What stage 1 needs of a teacher."""

from typing import Protocol

import torch


class Teacher(Protocol):
    """What stage 1 needs of a teacher."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def sha256(self) -> str: ...  # noqa: D102
    @property
    def mean(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def std(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def input_size(self) -> int: ...  # noqa: D102
    @property
    def crop_pct(self) -> float: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def classes(self) -> int: ...  # noqa: D102
    @property
    def class_names(self) -> tuple[str, ...]: ...  # noqa: D102

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 logits (n, classes) for uint8 views (n, height, width, RGB)."""
        ...
