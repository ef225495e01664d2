"""Names that were misspelt."""

import difflib
import re
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` with the name in `known` that `name` is most like, or nothing if it is like none.

    A name is also known by its beginning: `deit_tny` is like the first two words of `deit_tiny_patch16_224`.
    """
    beginnings: dict[str, str] = {}
    for whole in sorted(known):
        for end in (*(match.start() for match in re.finditer("[_.]", whole)), len(whole)):
            beginnings.setdefault(whole[:end], whole)
    similar = difflib.get_close_matches(name, beginnings, n=1, cutoff=0.7)
    return f"; did you mean {beginnings[similar[0]]}?" if similar else ""
