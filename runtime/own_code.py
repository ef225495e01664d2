"""Modules and functions of a user's own, named by them."""

import importlib
import os
import re
import sys
from types import ModuleType
from typing import Any

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


def is_own(name: str) -> bool:
    """Return whether a name is `MODULE:FUNCTION`."""
    return bool(re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name))


def call_own(where: str, name: str, what: str, **arguments: Any) -> Any:
    """Return what the function `MODULE:FUNCTION` returns; InputError if there is none, or for what it raises.

    `what` it is to return, and `where` it is named, are for the error.
    """
    module, _, function = name.partition(":")
    found = getattr(import_own(module), function, None)
    if not callable(found):
        what_is = "none" if found is None else f"a {type(found).__name__}"
        raise InputError(where, f"a function {function} in module {module}", what_is)
    try:
        return found(**arguments)
    except InputError:
        raise
    except Exception as error:  # whatever a user's code raises
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise InputError(where, f"a function that returns {what}", f"an error: {reason}") from error
