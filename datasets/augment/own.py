"""Ops and recipes of a user's own: registered by name, and known in a store by the digest of their source."""

import hashlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import InputError
from ...runtime.spelling import did_you_mean
from .philox import Draws

GROUP = "distillcache.ops"
"""Of a package's entry points: the name of an op, and the module that registers it."""
Draw = Callable[[Draws, int], float | None]
Apply = Callable[[NDArray[np.uint8], float], NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnOp:
    """An op that is not one of ours."""

    name: str
    draw: Draw
    apply: Apply
    digest: str
    """16 hex digits of the SHA-256 of the source file in which its functions are."""

    @property
    def stored(self) -> str:
        """What a recipe calls it: NAME:DIGEST."""
        return f"{self.name}:{self.digest}"


_REGISTERED: dict[str, OwnOp] = {}


def register_op(name: str, *, draw: Draw, apply: Apply) -> None:
    """Let recipes have an op of your own: `own_ops=NAME`.

    Both functions are module-level ones of one file: processes that render import it, and a store refuses to be used
    with another version of that file. `draw` takes its randomness from the view's `Draws` alone (`chance`, `uniform`,
    `integer`, `normal`), always as many draws, and rounds real numbers to binary fractions if their bytes are to be
    equal on every CPU. `apply` draws nothing.

    Args:
        name: Letters, digits and `_`; none of an op that there is.
        draw: From `Draws` and the view's size in pixels to the op's one number, or None: not this time.
        apply: From a uint8 image (size, size, 3), RGB, and that number to another such image.

    Raises:
        InputError: A ValueError: for a name that can't be, or functions that can't be imported by their names.
    """
    from .ops import OPS

    if not name.isidentifier() or name in OPS:
        raise InputError(f"op {name}", "letters, digits and _, and another name than our own ops'", repr(name))
    for function in (draw, apply):
        if "<" in function.__qualname__:
            raise InputError(f"op {name}", "functions of a module", f"{function.__qualname__}, which is inside another")
    source = Path(inspect.getsourcefile(apply) or "").read_bytes()
    digest = hashlib.sha256(source).hexdigest()[:16]
    _REGISTERED[name] = OwnOp(name=name, draw=draw, apply=apply, digest=digest)


def stored_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return what a recipe calls ops that are registered, by their names."""
    return tuple(_find(name).stored for name in names)


def own_ops(stored: Iterable[str]) -> tuple[OwnOp, ...]:
    """Return the ops that a recipe calls so; InputError if one is not registered, or with another source."""
    found = []
    for one in stored:
        name, _, digest = one.partition(":")
        op = _find(name)
        if op.digest != digest:
            expected = f"the source that the store was made with, SHA-256 {digest}..."
            raise InputError(f"op {name}", expected, f"{op.digest}...", "bring that version of its file back")
        found.append(op)
    return tuple(found)


def _find(name: str) -> OwnOp:
    if name not in _REGISTERED:
        for entry in entry_points(group=GROUP, name=name):
            entry.load()
    if name not in _REGISTERED:
        found = f"none{did_you_mean(name, [*_REGISTERED])}"
        raise InputError(
            f"op {name}",
            "one that is registered",
            found,
            "import the module that does; on the command line, before the command, `import=MODULE`",
        )
    return _REGISTERED[name]


def apply_own(image: NDArray[np.uint8], name: str, value: float) -> NDArray[np.uint8]:
    """Return `image` after an op of a user's own; InputError if that makes another shape or type of it."""
    made = _find(name).apply(image, value)
    if made.shape != image.shape or made.dtype != image.dtype:
        expected = f"an image {image.shape} of {image.dtype}"
        raise InputError(f"op {name}", expected, f"{made.shape} of {made.dtype}", "mend its `apply`")
    return np.ascontiguousarray(made)


def keep(ops: Iterable[Any]) -> None:
    """Register ops that came from another process of this run."""
    _REGISTERED.update({op.name: op for op in ops})
