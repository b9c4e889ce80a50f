"""Which index has the entry with this hash: SQLite, beside the log and made from it.

It is no part of what is promised: whatever is missing, or of another log, is made again from the tiles. Of a hash its
first half is kept; the tile has all of it, and who looks up compares.
"""

from __future__ import annotations

import os
import sqlite3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

KEY = 16  # bytes of a hash that are kept: finding another entry with the same ones takes 2**64 tries
_LAYOUT = 1
_CACHE = 256  # KiB


class Leaves:
    """The index in the file ``path``. Methods raise OSError."""

    def __init__(self, path: str) -> None:
        try:
            self._database = self._opened(path)
        except sqlite3.DatabaseError:  # torn, or nothing of ours
            for each in (path, f"{path}-wal", f"{path}-shm"):
                if os.path.lexists(each):
                    os.unlink(each)
            try:
                self._database = self._opened(path)
            except sqlite3.Error as error:
                raise OSError(f"{path}: {error}") from error
        found = self._database.execute("SELECT max(place) FROM leaf").fetchone()[0]
        self.size: int = 0 if found is None else found + 1  # entries that are in it

    @staticmethod
    def _opened(path: str) -> sqlite3.Connection:
        database = sqlite3.connect(path, isolation_level=None)
        try:
            database.execute(f"PRAGMA cache_size = -{_CACHE}")
            database.execute("PRAGMA journal_mode = WAL")  # with NORMAL a power cut costs the last commits, no more
            database.execute("PRAGMA synchronous = NORMAL")
            if database.execute("PRAGMA user_version").fetchone()[0] != _LAYOUT:
                database.execute("DROP TABLE IF EXISTS leaf")
                database.execute("CREATE TABLE leaf (place INTEGER PRIMARY KEY, key BLOB NOT NULL)")
                database.execute("CREATE INDEX by_key ON leaf (key)")
                database.execute(f"PRAGMA user_version = {_LAYOUT}")
        except sqlite3.Error:
            database.close()
            raise
        return database

    def add(self, hashes: Sequence[bytes]) -> None:
        """The leaf hashes that come next."""
        rows = [(self.size + number, each[:KEY]) for number, each in enumerate(hashes)]
        try:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO leaf VALUES (?, ?)", rows)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise OSError(f"cannot write the index: {error}") from error
        self.size += len(rows)

    def find(self, leaf: bytes, size: int) -> int | None:
        """The first place below ``size`` whose hash may be this one; None: there is none."""
        query = "SELECT min(place) FROM leaf WHERE key = ? AND place < ?"
        try:
            found: int | None = self._database.execute(query, (leaf[:KEY], size)).fetchone()[0]
        except sqlite3.Error as error:
            raise OSError(f"cannot read the index: {error}") from error
        return found

    def cut(self, size: int) -> None:
        """Forget what is at ``size`` and above."""
        try:
            self._database.execute("DELETE FROM leaf WHERE place >= ?", (size,))
        except sqlite3.Error as error:
            raise OSError(f"cannot write the index: {error}") from error
        self.size = min(self.size, size)

    def close(self) -> None:
        """Let go."""
        self._database.close()
