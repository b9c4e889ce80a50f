"""Rollups on disk, in SQLite, inside a bound of bytes that holds for all its files together.

The database has a bound of pages (https://www.sqlite.org/pragma.html#pragma_max_page_count), the write-ahead log a part
of its own: a transaction is so small that it cannot pass half of that, and above half of it the log is written back. A
locked database needs no shared memory file (https://www.sqlite.org/wal.html#noshm). ``synchronous=NORMAL`` syncs only
when the log is written back: a power cut may lose the last transactions, and never the database.

Rows lie in order of time, so a write touches few pages, and so does giving up the oldest bucket; pages that become free
are used again, and the file grows no more.
"""

from __future__ import annotations

import json
import os
import sqlite3

from ..records import Record
from .analytics_buckets import DAY, STEPS, Rollup, Row, victim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILE = "analytics.db"
PAGE = 4096  # bytes
FRAME = PAGE + 24  # bytes of a page in the log
PAGES_PER_ROW = 8  # more than one row can change: its leaf, two more when that is split, and their parents
CACHE = 512  # KiB of memory
MAX_SERIES = 4096
SERIES_BYTES = 1280  # of one on disk, in its table and its index
MAX_KEY = 512  # characters of a series' metric and labels
VERSION = 1

ADD = """
    INSERT INTO rollup VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (step, start, series) DO UPDATE SET
    number = number + excluded.number, total = total + excluded.total,
    low = min(low, excluded.low), high = max(high, excluded.high), last = excluded.last
"""
LOOK = """
    WITH RECURSIVE grid(at) AS (
        SELECT min(start) FROM rollup WHERE step = ?1 AND start >= ?2
        UNION ALL
        SELECT (SELECT min(start) FROM rollup WHERE step = ?1 AND start > at) FROM grid WHERE at < ?3
    )
    SELECT at, number, total, low, high, last FROM grid LEFT JOIN rollup
    ON step = ?1 AND start = at AND series = ?4 WHERE at < ?3
"""


class FullError(Exception):
    """There is no room for a series of this name."""


class Series(Record):
    """One metric with one set of labels."""

    ident: int
    metric: str
    labels: tuple[tuple[str, str], ...]  # by name
    kind: str  # counter | gauge


class Store:
    """The database in ``directory``, of at most ``max_bytes``, the log included. Raises sqlite3.Error, OSError.

    A file that is no database, or a damaged one, is removed: a second one would not be inside the bound.
    """

    def __init__(self, directory: str, max_bytes: int) -> None:
        self.path = os.path.join(directory, FILE)
        self._log_bytes = max(1 << 20, max_bytes // 8)
        self._pages = (max_bytes - self._log_bytes) // PAGE
        self._rows = self._log_bytes // 2 // FRAME // PAGES_PER_ROW  # in one transaction
        self._slack = 4 * self._rows + 16  # pages that are free before each transaction
        self.most_series = min(MAX_SERIES, self._pages * PAGE // 8 // SERIES_BYTES)
        self.removed = ""  # why an earlier database is gone
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # the disk, not the content
            self.removed = str(error)
            self._remove()
            self._open()

    def _open(self) -> None:
        self._db = db = sqlite3.connect(self.path, isolation_level=None, cached_statements=16)
        for pragma in (
            f"page_size={PAGE}",
            "auto_vacuum=INCREMENTAL",
            "locking_mode=EXCLUSIVE",
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "wal_autocheckpoint=0",
            f"cache_size=-{CACHE}",
            "temp_store=MEMORY",
        ):
            db.execute(f"PRAGMA {pragma}").fetchall()
        version = self._number("user_version")
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"its version is {version}, this program's is {VERSION}")
        db.execute(
            "CREATE TABLE IF NOT EXISTS series (id INTEGER PRIMARY KEY AUTOINCREMENT, metric TEXT NOT NULL,"
            " labels TEXT NOT NULL, kind TEXT NOT NULL, day INTEGER NOT NULL, UNIQUE (metric, labels))"
        )
        db.execute(
            "CREATE TABLE IF NOT EXISTS rollup (step INTEGER NOT NULL, start INTEGER NOT NULL, series INTEGER NOT NULL,"
            " number INTEGER NOT NULL, total REAL NOT NULL, low REAL NOT NULL, high REAL NOT NULL, last REAL NOT NULL,"
            " PRIMARY KEY (step, start, series)) WITHOUT ROWID"
        )
        db.execute(f"PRAGMA user_version={VERSION}")
        self._checkpoint(0)
        self._shrink()
        self._number(f"max_page_count={self._pages}")
        self._known: dict[tuple[str, str], tuple[int, int]] = {}  # metric and labels -> id, day last seen
        for ident, metric, labels, day in db.execute("SELECT id, metric, labels, day FROM series"):
            self._known[metric, labels] = (ident, day)

    def close(self) -> None:
        """The log is written back."""
        try:
            self._checkpoint(0)
        finally:
            self._db.close()

    # -- series

    def series(self, metric: str, labels: Mapping[str, str], kind: str, now: float) -> int:
        """The number of this series, a new one if need be, in the place of the one not seen for longest.

        Raises FullError when each of ``most_series`` was seen today or yesterday, or its name is too long.
        """
        text = json.dumps(sorted(labels.items()), ensure_ascii=False, separators=(",", ":"))
        day = int(now) // DAY
        found = self._known.get((metric, text))
        if found is None:
            if len(metric) + len(text) > MAX_KEY:
                raise FullError
            if len(self._known) >= self.most_series:
                self._forget(day)
            values = (metric, text, kind, day)
            cursor = self._db.execute("INSERT INTO series (metric, labels, kind, day) VALUES (?, ?, ?, ?)", values)
            found = (int(cursor.lastrowid or 0), day)
            self._known[metric, text] = found
            self._checkpoint(self._log_bytes // 2)
        elif found[1] < day:
            self._db.execute("UPDATE series SET day = ? WHERE id = ?", (day, found[0]))
            self._known[metric, text] = (found[0], day)
            self._checkpoint(self._log_bytes // 2)
        return found[0]

    def _forget(self, day: int) -> None:
        """Make room for one. Its rollups have no name any more and go as they grow old."""
        key = min(self._known, key=lambda key: self._known[key][1])
        ident, seen = self._known[key]
        if day - 2 < seen <= day:
            raise FullError
        self._db.execute("DELETE FROM series WHERE id = ?", (ident,))
        del self._known[key]

    def find(self, metric: str, labels: Mapping[str, str], after: int, most: int) -> list[Series]:
        """Series of a metric ('': of any) that have these labels and perhaps others, numbered above ``after``."""
        found = []
        query = "SELECT id, metric, labels, kind FROM series WHERE id > ? AND (? = '' OR metric = ?) ORDER BY id"
        for ident, name, text, kind in self._db.execute(query, (after, metric, metric)):
            own = tuple((str(label), str(value)) for label, value in json.loads(text))
            if labels.items() <= dict(own).items():
                found.append(Series(ident, name, own, kind))
                if len(found) == most:
                    break
        return found

    def counters(self) -> Iterator[tuple[int, float]]:
        """The last value of each counter in the newest bucket."""
        query = (
            "SELECT series, last FROM rollup JOIN series ON series.id = series AND kind = 'counter'"
            " WHERE step = ?1 AND start = (SELECT max(start) FROM rollup WHERE step = ?1)"
        )
        yield from self._db.execute(query, (STEPS[0],))

    def __len__(self) -> int:
        return len(self._known)

    # -- rollups

    def write(self, rows: list[Row], now: float) -> None:
        """Add ``rows`` to what is there; those that are written are taken out of it, so a failure loses none twice."""
        while rows:
            part = rows[: self._rows]
            self._make_room(now)
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                for row in part:
                    self._db.execute(ADD, (row.step, row.start, row.series, *row.rollup))
            del rows[: len(part)]
            self._checkpoint(self._log_bytes // 2)

    def sync(self) -> None:
        """Have all on the disk."""
        self._checkpoint(0)

    def spans(self) -> dict[int, tuple[int, int]]:
        """First and last start of each tier that has any."""
        found = {}
        for step in STEPS:
            first = self._db.execute("SELECT min(start) FROM rollup WHERE step = ?", (step,)).fetchone()[0]
            last = self._db.execute("SELECT max(start) FROM rollup WHERE step = ?", (step,)).fetchone()[0]
            if first is not None:
                found[step] = (first, last)
        return found

    def rows(self, step: int, series: int, begin: int, end: int) -> Iterator[tuple[int, Rollup | None]]:
        """Each bucket of a tier that starts in [begin, end), by time, and what of the series is in it.

        One look each, whatever the number of series; the caller stops when it has seen enough.
        """
        for start, number, *rest in self._db.execute(LOOK, (step, begin, end, series)):
            yield start, None if number is None else Rollup(number, *rest)

    def used(self) -> int:
        """Bytes of all its files."""
        return sum(_size(self.path + suffix) for suffix in ("", "-wal", "-shm", "-journal"))

    # -- inside the bound

    def _make_room(self, now: float) -> None:
        while self._taken() > self._pages - self._slack:
            given_up = victim(self.spans(), now)
            if given_up is None:
                return  # the names alone; they are bounded
            step, start = given_up
            some = (step, start, self._rows * PAGES_PER_ROW)
            query = "SELECT series FROM rollup WHERE step = ? AND start = ? ORDER BY series LIMIT 1 OFFSET ?"
            found = self._db.execute(query, some).fetchone()
            border = 2**63 - 1 if found is None else found[0]
            query = "DELETE FROM rollup WHERE step = ? AND start = ? AND series < ?"
            self._db.execute(query, (step, start, border))
            self._checkpoint(self._log_bytes // 2)

    def _taken(self) -> int:
        return self._number("page_count") - self._number("freelist_count")

    def _shrink(self) -> None:
        """After the bound was lowered: give up the oldest, and give the pages back, some at a time."""
        if self._number("page_count") <= self._pages:
            return
        self._make_room(0.0)
        while (over := self._number("page_count") - self._pages) > 0:
            before = self._number("page_count")
            self._db.execute(f"PRAGMA incremental_vacuum({min(over, self._rows)})").fetchall()
            self._checkpoint(0)
            if self._number("page_count") >= before:
                raise sqlite3.DatabaseError("its bound was lowered, and it does not shrink")

    def _checkpoint(self, above: int) -> None:
        """Write the log back when it is longer than ``above`` bytes."""
        if _size(self.path + "-wal") > above:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _number(self, pragma: str) -> int:
        return int(self._db.execute(f"PRAGMA {pragma}").fetchone()[0])

    def _remove(self) -> None:
        self._db.close()
        for suffix in ("", "-wal", "-shm", "-journal"):
            try:
                os.unlink(self.path + suffix)
            except FileNotFoundError:
                pass


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
