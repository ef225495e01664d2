"""Records out of files and programs: is each field of the type that it is declared with?"""

from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .errors import InputError


def require_types(record: Any) -> None:
    """Raise ValueError naming the first field of a dataclass that is not of its declared type."""
    for name, hint in get_type_hints(type(record)).items():
        if not _is_a(value := getattr(record, name), hint):
            expected = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
            raise InputError(name, expected, repr(value))


def _is_a(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is tuple:
        each = inner[:1] * len(value) if isinstance(value, tuple) and inner[1:] == (...,) else inner
        return isinstance(value, tuple) and len(value) == len(each) and all(map(_is_a, value, each))
    if origin is dict:
        return isinstance(value, dict) and all(_is_a(item, inner[1]) for item in value.values())
    if origin is UnionType:
        return any(_is_a(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)
