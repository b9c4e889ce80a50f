"""Which index has the entry with this hash: SQLite, beside the log and made from it.

It is no part of what is promised: whatever is missing, or of another log, is made again from the tiles. Of a hash its
beginning is kept; the tile has all of it, and who looks up compares.
"""

from __future__ import annotations

import os
import sqlite3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KEY = 8  # bytes of a hash that are kept
_LAYOUT = 1
_TABLES = """
    BEGIN;
    DROP TABLE IF EXISTS leaf;
    DROP TABLE IF EXISTS log;
    CREATE TABLE leaf (key BLOB, place INTEGER, PRIMARY KEY (key, place)) WITHOUT ROWID;
    CREATE TABLE log (size INTEGER NOT NULL);
    INSERT INTO log VALUES (0);
    PRAGMA user_version = 1;
    COMMIT;
"""
_CACHE = 1024  # KiB


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
        self.size: int = self._database.execute("SELECT size FROM log").fetchone()[0]  # entries that are in it

    @staticmethod
    def _opened(path: str) -> sqlite3.Connection:
        database = sqlite3.connect(path, isolation_level=None)
        try:
            database.execute(f"PRAGMA cache_size = -{_CACHE}")
            database.execute("PRAGMA journal_mode = WAL")  # with NORMAL a power cut costs the last commits, no more
            database.execute("PRAGMA synchronous = NORMAL")
            if database.execute("PRAGMA user_version").fetchone()[0] != _LAYOUT:
                database.executescript(_TABLES)
            database.execute("SELECT size FROM log").fetchone()[0]
        except (sqlite3.Error, TypeError) as error:  # no row: not one of ours
            database.close()
            raise sqlite3.DatabaseError(str(error)) from error
        return database

    def add(self, hashes: Sequence[bytes]) -> None:
        """The leaf hashes that come next."""
        rows = sorted((each[:KEY], self.size + number) for number, each in enumerate(hashes))
        try:
            with self._database:
                self._database.execute("BEGIN")
                self._database.executemany("INSERT INTO leaf VALUES (?, ?)", rows)
                self._database.execute("UPDATE log SET size = ?", (self.size + len(rows),))
        except sqlite3.Error as error:
            raise OSError(f"cannot write the index: {error}") from error
        self.size += len(rows)

    def find(self, leaf: bytes, size: int) -> Iterator[int]:
        """The places below ``size`` whose hash may be this one, in order."""
        query = "SELECT place FROM leaf WHERE key = ? AND place < ? ORDER BY place"
        try:
            for (place,) in self._database.execute(query, (leaf[:KEY], size)):
                yield place
        except sqlite3.Error as error:
            raise OSError(f"cannot read the index: {error}") from error

    def cut(self, size: int) -> None:
        """Forget what is at ``size`` and above."""
        if size >= self.size:
            return
        try:
            with self._database:
                self._database.execute("BEGIN")
                self._database.execute("DELETE FROM leaf WHERE place >= ?", (size,))
                self._database.execute("UPDATE log SET size = ?", (size,))
        except sqlite3.Error as error:
            raise OSError(f"cannot write the index: {error}") from error
        self.size = size

    def close(self) -> None:
        """Let go."""
        self._database.close()
