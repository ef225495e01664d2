"""Modules of a user's own, named by them."""

import importlib
import os
import sys
from types import ModuleType

from .errors import InputError


def import_own(name: str) -> ModuleType:
    """Import and return a module as Python would, also from the working directory, behind what is installed.

    That stays importable, for processes that this one starts. Raises InputError for whatever the module raises.
    """
    if os.getcwd() not in sys.path:  # noqa: PTH109
        sys.path.append(os.getcwd())  # noqa: PTH109
    try:
        return importlib.import_module(name)
    except InputError:
        raise
    except Exception as error:  # whatever a user's code raises
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise InputError(f"module {name}", "one that can be imported", f"an error: {reason}") from error
