"""Answers to questions about what is kept: which series, which points of them, and where the next answer begins."""

from __future__ import annotations

from . import analytics_buckets as buckets
from .errors import RefusedError
from .telemetry_text import MAX_LABELS, MAX_VALUE, is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..peers.wire import Message
    from .analytics_store import Series, Store
    from .requests import Request

    Waiting = Callable[[int, int], list[buckets.Row]]

POINTS = 400  # in one answer
LOOKS = 6000  # at buckets, for one answer: a tenth of a second
SERIES = 24  # in one answer, so that it stays below the bound of values in a message
MAX_STEP = 7 * 86_400  # seconds
LATEST = 2**40  # unix seconds


def series(store: Store, request: Request) -> Message:
    """The answer to ``series``. Raises RefusedError."""
    metric = request.message.get("metric", "")
    if not isinstance(metric, str):
        raise RefusedError("bad-request", "metric is not text")
    found = store.find(metric, labels(request), request.whole("after", 0, 2**62, 0), SERIES)
    after = found[-1].ident if len(found) == SERIES else None
    return {"series": [_named(each) for each in found], "after": after}


def query(store: Store, request: Request, waiting: Waiting) -> Message:
    """The answer to ``query``. ``waiting(series, tier)``: rows that are not on the disk yet. Raises RefusedError."""
    metric = request.message.get("metric")
    if not isinstance(metric, str) or not metric:
        raise RefusedError("bad-request", "metric is missing")
    begin, end = request.whole("from", 0, LATEST), request.whole("to", 0, LATEST)
    wanted = request.whole("step", 1, MAX_STEP)
    last, since = _after(request.message.get("after"))
    tier = buckets.tier(wanted, begin, {step: span[0] for step, span in store.spans().items()})
    step = max(tier, wanted // tier * tier)
    begin = begin // step * step
    answer: Message = {"step": step, "series": [], "after": None}
    points, looks = POINTS, LOOKS
    asked = store.find(metric, labels(request), last - 1, SERIES)
    for each in asked:
        start = max(begin, since) if each.ident == last else begin
        more = waiting(each.ident, tier)
        found, looked, stop = _points(store, each.ident, (tier, step), (start, end), (points, looks), more)
        points -= len(found)
        looks -= looked
        if found:
            answer["series"].append({**_named(each), **_columns(found)})
        if stop < end:
            answer["after"] = [each.ident, stop]
            break
        if points <= 0 or looks <= 0:
            answer["after"] = [each.ident + 1, 0]
            break
    else:
        answer["after"] = None if len(asked) < SERIES else [asked[-1].ident + 1, 0]
    return answer


def _points(
    store: Store,
    ident: int,
    steps: tuple[int, int],
    span: tuple[int, int],
    most: tuple[int, int],
    more: list[buckets.Row],
) -> tuple[list[tuple[int, buckets.Rollup]], int, int]:
    """Points of (tier, step) in [begin, end), how many buckets were looked at, and where they stop.

    ``most``: points, and looks. ``more``: rows that are not on the disk. A point is never in part.
    """
    (tier, step), (begin, end), (points, looks) = steps, span, most
    rows: list[buckets.Row] = []
    looked, filled, current, stop = 0, 0, -1, end
    for start, rollup in store.rows(tier, ident, begin, end):
        point = start // step * step
        if point != current and (looked >= looks or filled > points):
            stop = point
            break
        looked, current = looked + 1, point
        if rollup is not None:
            filled += not rows or rows[-1].start // step != start // step
            rows.append(buckets.Row(tier, start, ident, rollup))
    rows += (row for row in more if begin <= row.start < stop)
    found = buckets.merged(rows, step)
    if len(found) > points:
        stop = found[points][0]
    return found[:points], looked, stop


def labels(request: Request) -> dict[str, str]:
    """The labels of a request. Raises RefusedError."""
    given = request.message.get("labels", {})
    if not isinstance(given, dict) or len(given) > MAX_LABELS + 1:
        raise RefusedError("bad-request", f"labels are not a map of at most {MAX_LABELS + 1}")
    for name, value in given.items():
        if not is_name(name) or not isinstance(value, str) or len(value) > MAX_VALUE:
            raise RefusedError("bad-request", "labels are not names with short texts")
    return given


def _after(given: Any) -> tuple[int, int]:
    """(series, time) to go on from."""
    if given is None:
        return 0, 0
    if isinstance(given, list) and len(given) == 2 and all(type(each) is int and 0 <= each < 2**62 for each in given):
        return given[0], given[1]
    raise RefusedError("bad-request", "after is not what an answer had")


def _named(series: Series) -> dict[str, Any]:
    return {"metric": series.metric, "labels": dict(series.labels), "kind": series.kind}


def _columns(points: list[tuple[int, buckets.Rollup]]) -> dict[str, Any]:
    columns: dict[str, Any] = {"times": [start for start, _ in points]}
    for position, name in enumerate(buckets.Rollup._fields):
        columns[name] = [rollup[position] for _, rollup in points]
    return columns
