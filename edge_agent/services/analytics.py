"""Keeps what telemetry gathers in buckets of time, inside a bound of bytes, and answers questions about it.

    query  {metric, labels?, from, to, step, after?} -> {step, series: [{metric, labels, kind, times, number, total,
                                                         low, high, last}], after}
    series {metric?, labels?, after?}                -> {series: [{metric, labels, kind}], after}
    record {metric, labels?, kind?, value}           -> {}     a sample of a service's or an application's own
    flush  {}                                        -> {}     write what is held now

Times are unix seconds, [from, to); a point is a bucket of ``step`` seconds, of which the answer says how long they are.
``labels`` are those that a series must have. Of a counter ``total`` is the increase, so total/step is its rate; of a
gauge total/number is the mean. An answer has at most POINTS points; ``after`` is what to ask with for the next ones,
or nil.

Samples come from the telemetry service, by its local socket, every ``interval``. They are held in memory and written
every ``flush`` seconds, since flash wears; kill -9 or a power cut loses what is held, and nothing of what is written.
"""

from __future__ import annotations

import os
import sqlite3
import time

from . import analytics_buckets as buckets
from . import analytics_query
from .analytics_source import Source
from .analytics_store import FullError, Store
from .errors import RefusedError, StartError
from .log import WARNING, log
from .metrics import COUNTER, GAUGE, Metric, counter, gauge
from .runtime import Service
from .telemetry_text import is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ..peers.wire import Message
    from .options import Options
    from .requests import Operation, Request
    from .runtime import Runtime

AGAIN = 60.0  # seconds until a write that failed is tried again
UNWRITTEN = 30_000  # rows that wait for a disk that refuses them: some 10 MiB


class Analytics(Service):
    """The service. ``wall`` and ``steady`` are the clocks: unix seconds, and seconds since boot."""

    name = "analytics"
    request_limit = 16 * 1024

    def __init__(
        self,
        options: Options,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        super().__init__(options)
        self._runtime: Runtime
        self._store: Store | None = None
        self._wall, self._steady = wall, steady
        self._held = buckets.Held()
        self._rows: list[buckets.Row] = []  # rolled up, and refused by the disk so far
        self._source: Source | None = None
        self._lost = self._refused = self._sampled = self._written = 0
        self._next_sample = self._next_flush = 0.0
        self._said = False  # that the disk refuses

    @property
    def store(self) -> Store:
        """The database, open."""
        assert self._store is not None  # noqa: S101 - operations come after ``open``
        return self._store

    # -- life

    def open(self, runtime: Runtime) -> None:
        """Open the database. Raises StartError."""
        self._runtime = runtime
        try:
            self._store = Store(self.options.data_dir, self.options.keeping.max_bytes)
            for series, raw in self._store.counters():
                self._held.remember(series, raw)
        except (sqlite3.Error, OSError) as error:
            raise StartError(f"cannot use {self.options.data_dir}: {error}; fix: rights and space there") from error
        if self._store.removed:
            log(self.name, f"began anew, as the database could not be read: {self._store.removed}", WARNING)
        self._source = Source(runtime, self.name, os.path.dirname(self.options.run_dir), self._gathered)
        now = runtime.now()
        self._next_sample, self._next_flush = now + min(1.0, self.options.keeping.interval), now + self._pause

    def close(self) -> None:
        """What is held is written."""
        if self._source is not None:
            self._source.close()
        if self._store is None:
            return
        try:
            self._flush(at_once=True)
            self._store.close()
        except (sqlite3.Error, OSError) as error:
            log(self.name, f"cannot write what is held: {error}; it is lost", WARNING)

    @property
    def _pause(self) -> float:
        return self.options.keeping.flush

    def deadline(self) -> float | None:
        """The next sample or the next write."""
        return min(self._next_sample, self._next_flush)

    def tick(self, now: float) -> None:
        """It has come. What was slept through is not made up for."""
        if self._next_sample <= now and self._source is not None:
            self._next_sample = max(self._next_sample + self.options.keeping.interval, now)
            self._source.ask()
        if self._next_flush <= now:
            self._next_flush = now + self._pause
            self._try_flush()

    def details(self) -> Message:
        """How much is kept, and how much may be."""
        told = {"held": len(self._held), "unwritten": len(self._rows), "limit": self.options.keeping.max_bytes}
        return {**told, "used": self.store.used(), "series": len(self.store)}

    def metrics(self) -> Sequence[Metric]:
        """Its own work."""
        return (
            counter("analytics_samples_total", "Samples taken.", self._sampled),
            counter("analytics_samples_refused_total", "Samples of series for which there is no room.", self._refused),
            counter("analytics_rows_written_total", "Rollups written to the disk.", self._written),
            counter("analytics_rows_lost_total", "Rollups that the disk refused for too long.", self._lost),
            gauge("analytics_samples_held", "Samples in memory.", len(self._held)),
            gauge("analytics_series", "Series that have a name.", len(self.store)),
            gauge("analytics_disk_bytes", "Size of all files.", self.store.used()),
            gauge("analytics_disk_limit_bytes", "What that may be.", self.options.keeping.max_bytes),
        )

    def operations(self) -> Mapping[str, Operation]:
        """query, series, record, flush."""
        return {"query": self._query, "series": self._series, "record": self._record, "flush": self._flush_now}

    # -- in

    def _gathered(self, families: Sequence[Metric]) -> None:
        for family in families:
            for labels, value in family.samples:
                self._take(family.name, labels, family.kind, value)

    def _take(self, metric: str, labels: Mapping[str, str], kind: str, value: float) -> bool:
        """Hold one sample; False when there is no room for its series."""
        if value != value or abs(value) == float("inf"):
            return False
        try:
            series = self.store.series(metric, labels, kind, self._wall())
        except FullError:
            self._refused += 1
            return False
        except (sqlite3.Error, OSError) as error:
            self._say(f"cannot name a series: {error}; fix: free the disk")
            self._refused += 1
            return False
        self._held.add(self._steady(), series, float(value), counter=kind == COUNTER)
        self._sampled += 1
        if len(self._held) >= buckets.MAX_HELD:
            self._try_flush(at_once=True)
        return True

    def _record(self, request: Request) -> Message:
        message = request.message
        metric, kind = message.get("metric"), message.get("kind", GAUGE)
        value: Any = message.get("value")
        if not isinstance(metric, str) or not is_name(metric):
            raise RefusedError("bad-request", "metric is no name", "use letters, digits and _")
        if kind not in (COUNTER, GAUGE):
            raise RefusedError("bad-request", "kind is neither counter nor gauge")
        if type(value) not in (int, float) or not abs(value) < 2.0**1000:
            raise RefusedError("bad-request", "value is not a number")
        if kind == COUNTER and value < 0:
            raise RefusedError("bad-request", "a counter is not negative")
        if not self._take(metric, analytics_query.labels(request), kind, value):
            raise RefusedError("no-space", "there is no room for another series", "use fewer labels")
        return {}

    # -- to the disk

    def _flush_now(self, _request: Request) -> Message:
        try:
            self._flush(at_once=True)
        except (sqlite3.Error, OSError) as error:
            raise RefusedError("failed", f"the disk refuses: {error}", "free it; it is tried again") from error
        return {}

    def _try_flush(self, *, at_once: bool = False) -> None:
        try:
            self._flush(at_once=at_once)
            self._said = False
        except (sqlite3.Error, OSError) as error:
            self._say(f"cannot write: {error}; fix: free the disk; it is tried again")
            self._next_flush = self._runtime.now() + AGAIN

    def _flush(self, *, at_once: bool = False) -> None:
        """Write what is held; while nobody has set the clock only ``at_once``. Raises sqlite3.Error, OSError."""
        wall, steady = self._wall(), self._steady()
        offset = buckets.offset(wall, steady)
        if len(self._held):
            if offset is None and at_once:
                span = self.store.spans().get(buckets.STEPS[0])
                offset = buckets.guessed(span[1] if span else None, self._held.first(), wall, steady)
            if offset is None:
                return
            self._rows += self._held.rows(offset)
            self._held.clear()
            if len(self._rows) > UNWRITTEN:
                self._lost += len(self._rows) - UNWRITTEN
                del self._rows[:-UNWRITTEN]
        before = len(self._rows)
        try:
            self.store.write(self._rows, wall)
            self.store.sync()
        finally:
            self._written += before - len(self._rows)

    # -- out

    def _series(self, request: Request) -> Message:
        return analytics_query.series(self.store, request)

    def _query(self, request: Request) -> Message:
        return analytics_query.query(self.store, request, self._waiting)

    def _waiting(self, series: int, tier: int) -> list[buckets.Row]:
        """What is not on the disk, by the clock as it is: what is held has no place yet."""
        offset = buckets.offset(self._wall(), self._steady())
        if offset is None:
            offset = self._wall() - self._steady()
        refused = [row for row in self._rows if row.series == series and row.step == tier]
        return refused + self._held.rows(offset, (tier,), series)

    def _say(self, text: str) -> None:
        """Once, until it is over."""
        if not self._said:
            self._said = True
            log(self.name, text, WARNING)
