"""What is wrong with a profile: every problem with its place, the value, why, and what to write instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..records import Record

LONGEST_VALUE = 80
"""Characters of a wrong value shown in a message."""
LONGEST_TEXT = 500
"""Characters of a key, a reason or a fix shown in a message."""
MOST_PROBLEMS = 100
"""Problems reported at once. Finding the nearest name costs a millisecond, and a file holds 100,000 wrong ones."""


class Place(Record):
    """Where a key or a value was written. ``line`` and ``column`` count from 1; 0 outside of files."""

    source: str = ""  # path of a file, name of a variable, or a flag as typed
    line: int = 0
    column: int = 0

    def text(self) -> str:
        """``file:line``, or the source alone when it has no lines."""
        return f"{self.source}:{self.line}" if self.line else self.source


class Problem(Record):
    """One problem."""

    file: str  # a path, or the name of the variable or flag that the value came from
    line: int  # from 1; 0 for a variable, a flag or a whole file
    key: str  # dotted, as services.storage.resources.memory; '' for the whole file
    value: str  # as written; '' when there is none to show
    why: str
    fix: str = ""
    column: int = 0

    def text(self) -> str:
        """``file:line: key: 'value': why; fix: fix``, without the parts that are empty."""
        parts = [Place(self.file, self.line).text(), shorten(self.key, LONGEST_TEXT)]
        if self.value:
            parts.append("'" + shorten(self.value) + "'")
        text = ": ".join(part for part in [*parts, shorten(self.why, LONGEST_TEXT)] if part)
        return printable(f"{text}; fix: {shorten(self.fix, LONGEST_TEXT)}" if self.fix else text)


class ProfileError(Exception):
    """A profile cannot be used. ``problems`` holds every one of them, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.text() for problem in self.problems))


class ReadError(ValueError):
    """A value cannot be understood; raised by readers, which do not know where the value stands."""

    def __init__(self, why: str, fix: str | Callable[[], str] = "") -> None:
        self.why = why
        self._fix = fix
        super().__init__(why)

    @property
    def fix(self) -> str:
        """What to write instead; only now looked for when it is a nearest name."""
        return self._fix if isinstance(self._fix, str) else self._fix()


def problem(place: Place, key: str, value: str, why: str, fix: str = "") -> Problem:
    """A problem at a place."""
    return Problem(place.source, place.line, key, value, why, fix, place.column)


def printable(text: str) -> str:
    """One line that does nothing to a terminal: what people wrote may hold line ends and escape sequences."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shorten(text: str, most: int = LONGEST_VALUE) -> str:
    """At most ``most`` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most like ``name``, or ''. Case, ``-`` and ``_`` make no difference."""
    from difflib import get_close_matches  # only when something is wrong: it costs the import of heapq and re

    plain = {candidate.lower().replace("-", "_"): candidate for candidate in sorted(known, reverse=True)}
    match = get_close_matches(name[:LONGEST_VALUE].lower().replace("-", "_"), plain, n=1, cutoff=0.6)
    return plain[match[0]] if match else ""


def suggest(name: str, known: Iterable[str]) -> str:
    """A fix for an unknown name: the nearest right one, or the list of all."""
    names = sorted(known)
    near = nearest(name, names)
    if near:
        return f"did you mean '{near}'?"
    return "use one of " + ", ".join(names) if names else ""
