"""Packages that come with an extra: imported where they are needed, or else named with how to install them."""

import importlib
from typing import Any

from .errors import InputError


def optional(module: str, *, extra: str, where: str) -> Any:
    """Import and return a module; InputError about `where` says which of our extras installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        remedy = f"run: pip install 'distillcache[{extra}]'"
        raise InputError(where, f"the module {module}", "none", remedy) from error
