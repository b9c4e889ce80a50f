"""Text as man(7) source."""

from __future__ import annotations

from collections.abc import Iterable


def escaped(text: str) -> str:
    """``text`` with nothing in it that troff(1) would take for its own."""
    safe = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{safe}" if safe.startswith((".", "\\(aq")) else safe


def bold(text: str) -> str:
    """In bold, within a line."""
    return f"\\fB{escaped(text)}\\fR"


def italic(text: str) -> str:
    """In italics, within a line."""
    return f"\\fI{escaped(text)}\\fR"


def tagged(tag: str, text: str) -> str:
    """A paragraph behind a tag; ``tag`` is roff already, ``text`` plain."""
    return f".TP\n{tag}\n{escaped(text) if text else chr(92) + '&'}"


def lines(parts: Iterable[str]) -> str:
    """One after the other."""
    return "\n".join(parts)
