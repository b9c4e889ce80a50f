"""Whatever is measured, however the clock jumps, whenever it is killed: the files stay inside their bound.

``EDGE_AGENT_EXAMPLES`` raises the number of examples for a long run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.services.analytics_buckets import EPOCH, STEPS, Rollup, Row
from edge_agent.services.analytics_store import FullError, Store

EXAMPLES = int(os.environ.get("EDGE_AGENT_EXAMPLES", "25"))
LEAST = 2 * 1024 * 1024
KEPT = ("analytics.db", "analytics.db-wal")

WRITE = st.tuples(
    st.just("write"), st.integers(1, 700), st.sampled_from([0, 60, 3600, 86_400, -86_400, 10**9, -EPOCH]), st.booleans()
)
CHAOS = st.tuples(
    st.sampled_from(["kill", "restart", "names", "shrink"]), st.integers(0, 400), st.just(0), st.just(False)
)


def on_disk(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(WRITE | CHAOS, max_size=40))
def test_the_bound_holds(steps: list[tuple[str, int, int, bool]]) -> None:
    limit, now = 2 * LEAST, EPOCH
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory, "first")
        place.mkdir()
        store = Store(str(place), limit)
        for number, (kind, count, jump, scattered) in enumerate(steps):
            if kind == "write":
                now = max(0, now + jump)
                spread = 997 if scattered else 1  # scattered: every row on another page
                rows = [
                    Row(
                        step,
                        max(0, now - each * spread * step) // step * step,
                        each % 50,
                        Rollup(1, 1.0, 1.0, 1.0, 1.0),
                    )
                    for step in STEPS
                    for each in range(count)
                ]
                rows.sort()
                newest = rows[-1]
                store.write(rows, now)
                assert not rows
                ((_, found),) = store.rows(newest.step, newest.series, newest.start, newest.start + 1)
                assert found is not None
            elif kind == "names":
                for each in range(count):
                    try:
                        store.series("m" * 100, {"number": f"{number}-{each}", "long": "x" * 300}, "gauge", now)
                    except FullError:
                        break
            elif kind == "kill":  # what is on the disk at this moment is what the next process finds
                after = Path(directory, str(number))
                after.mkdir()
                for name in KEPT:
                    if (place / name).exists():
                        shutil.copy(place / name, after)
                before = store.spans()
                store.close()
                store, place = Store(str(after), limit), after
                assert store.spans() == before, "nothing that was written is lost"
                assert not store.removed
            else:
                store.close()
                limit = LEAST if kind == "shrink" else limit
                store = Store(str(place), limit)
                assert not store.removed
            assert on_disk(place) == store.used() <= limit
        store.close()
        assert on_disk(place) <= limit
