"""Markdown, as the cards of stores and students are written."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def front_matter(fields: Mapping[str, Any]) -> str:
    """Return the head of a card, as the Hugging Face Hub reads it: JSON is YAML."""
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---"])


def table(head: Sequence[str], rows: Sequence[tuple[str, str]]) -> str:
    """Return a table, whatever its cells hold."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join(lines + [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in rows])


def _escaped(text: str) -> str:
    """Return a text that stays in its cell."""
    return "".join(c if c.isprintable() else " " for c in text).replace("|", "\\|")
