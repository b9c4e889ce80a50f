"""The keys that a full node lets in: those of the profile, and a file that may change while it runs."""

from __future__ import annotations

import os

from ..peers.zap import is_key
from .errors import StartError
from .log import WARNING, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LOOK_EVERY = 5.0  # seconds at most between a change and its effect, when somebody knocks
MOST = 64 * 1024 * 1024  # bytes: more than a million keys


class MembersFile:
    """``key in members`` asks whether a CURVE public key (Z85) is let in.

    The file has a key a line, and behind a blank whatever a person wants to note; ``#`` begins a comment; path '' is no
    file. One that cannot be read, or has a line that begins with no key, changes nothing, and that is said; at the
    start it raises StartError.
    """

    def __init__(self, path: str, always: Iterable[str], now: Callable[[], float]) -> None:
        self._path, self._always, self._now = path, dict.fromkeys(always), now
        self._seen: tuple[int, int, int] | None = None
        self._due = 0.0
        self.keys: dict[str, None] = self._always  # in order
        if path:
            try:
                self._seen, self.keys = self._load()
            except (OSError, ValueError) as error:
                raise StartError(f"cannot read members {path}: {error}; fix: a key of 40 characters a line") from error

    def __contains__(self, key: object) -> bool:
        if key not in self.keys:
            self.look()
        return key in self.keys

    def look(self) -> None:
        """Look whether the file has changed, unless that was done just now."""
        if not self._path or self._now() < self._due:
            return
        self._due = self._now() + LOOK_EVERY
        try:
            if self._stamp() != self._seen:
                self._seen, self.keys = self._load()
        except (OSError, ValueError) as error:
            log("node", f"cannot read members {self._path}: {error}; the keys stay as they were", WARNING)

    def _stamp(self) -> tuple[int, int, int]:
        found = os.stat(self._path)
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _load(self) -> tuple[tuple[int, int, int], dict[str, None]]:
        stamp, keys = self._stamp(), dict(self._always)
        if stamp[2] > MOST:
            raise ValueError(f"larger than {MOST} bytes")
        with open(self._path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                words = line.split()
                if not words or (words[0].startswith("#") and not is_key(words[0])):
                    continue
                if not is_key(words[0]):
                    raise ValueError(f"line {number} begins with no key")
                keys[words[0]] = None
        return stamp, keys
