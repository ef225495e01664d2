"""What torch.compile can't do, in one line."""

import contextlib
from collections.abc import Iterator

from .errors import InputError


@contextlib.contextmanager
def compiling(compiled: bool) -> Iterator[None]:
    """While a `compiled` model is at work, raise ValueError with the reason where torch.compile could not take it."""
    try:
        yield
    except RuntimeError as error:
        if not compiled:
            raise
        reason = str(error).partition("\n")[0]
        raise InputError("`compile`", "a model that torch.compile takes", reason, "leave `compile` out") from error
