"""Hostile bytes to the parsers of telemetry and analytics: one declared error each, and bounded memory.

``EDGE_AGENT_FUZZ_EXAMPLES`` raises the number of examples for a long run.
"""

from __future__ import annotations

import contextlib
import os
import random
import tracemalloc

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from edge_agent.peers.wire import WireError, pack, unpack
from edge_agent.services.analytics_buckets import Held
from edge_agent.services.metrics import COUNTER, GAUGE, Metric, counter, gauge
from edge_agent.services.telemetry_http import MAX_HEAD, HttpError, parse
from edge_agent.services.telemetry_text import OPENMETRICS, Page, chosen, pack_page, render, unpack_page
from tests.fuzz.test_wire_fuzz import EDIT, mutate

EXAMPLES = int(os.environ.get("EDGE_AGENT_FUZZ_EXAMPLES", "400"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

REQUESTS = [
    b"GET /metrics HTTP/1.1\r\nHost: a:9090\r\nAccept: application/openmetrics-text;version=1.0.0;q=0.5\r\n\r\n",
    b"HEAD /-/healthy HTTP/1.0\n\n",
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
]
SENT = [
    ["service_requests_total", "counter", "Asked.", [[{"outcome": "answered"}, 3], [{"outcome": "refused"}, 0]]],
    ["service_memory_pss_bytes", "gauge", "Size.", [[{}, 8_000_000]]],
]
ANSWERS = [pack({"v": 1, "id": 1, "ok": True, "metrics": SENT})]


def _page() -> bytes:
    page = Page()
    page.add(gauge("edge_agent_up", "Up.", 1))
    page.add(counter("edge_agent_x_total", "X.", 2.5, service="storage"))
    page.add(Metric("edge_agent_y", GAUGE, "Y.", (({"a": "1"}, 1), ({"a": "2"}, -1.5))))
    return pack_page(page)


def consume_request(data: bytes) -> None:
    try:
        ask = parse(data)
    except HttpError:
        return
    assert ask is not None or len(data) < MAX_HEAD
    if ask is not None:
        assert ask.method in ("GET", "HEAD")
        assert ask.path.startswith("/")
        chosen(ask.accept)


def consume_answer(data: bytes) -> None:
    try:
        given = unpack(data, 256 * 1024, 16_384).get("metrics")
    except WireError:
        return
    page = Page()
    page.add_sent(given, "hostile")
    found = list(openmetrics(render(page, OPENMETRICS).decode()))
    assert sum(len(family.samples) for family in found) == len(page)


def consume_page(data: bytes) -> None:
    held = Held()
    with contextlib.suppress(WireError):
        for metric in unpack_page(data):
            for _labels, value in metric.samples:
                held.add(0.0, 1, float(value), counter=metric.kind == COUNTER)
        held.rows(1e9)


@fuzz
@given(st.sampled_from(REQUESTS), st.lists(EDIT, max_size=12))
def test_mutated_requests(seed: bytes, edits: list[tuple[str, int, int]]) -> None:
    consume_request(mutate(seed, edits))


@fuzz
@given(st.sampled_from(ANSWERS), st.lists(EDIT, max_size=6))
def test_mutated_answers_of_services(seed: bytes, edits: list[tuple[str, int, int]]) -> None:
    consume_answer(mutate(seed, edits))


@fuzz
@given(st.lists(EDIT, max_size=6))
def test_mutated_pages(edits: list[tuple[str, int, int]]) -> None:
    consume_page(mutate(_page(), edits))


@fuzz
@given(st.text(max_size=200))
def test_any_accept_field_has_a_form(accept: str) -> None:
    assert chosen(accept)


VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SAMPLE = st.lists(
    st.dictionaries(st.text(max_size=5), st.text(max_size=9) | VALUE, max_size=3) | VALUE, max_size=2
).flatmap(
    lambda labels: st.tuples(st.just(labels[0] if labels else {}), st.floats() | st.integers(-5, 5) | VALUE).map(list)
)
NAME = st.sampled_from(["a", "a_total", "a_created", "b", "b_total"]) | st.text(max_size=5)
FAMILY = st.tuples(NAME, st.sampled_from([COUNTER, GAUGE]) | VALUE, st.text(max_size=9), st.lists(SAMPLE, max_size=4))


@fuzz
@given(st.lists(st.tuples(st.sampled_from(["s", "t"]), st.lists(FAMILY.map(list) | VALUE, max_size=4)), max_size=4))
def test_whatever_services_say_the_page_is_well_formed(answers: list[tuple[str, list[object]]]) -> None:
    page = Page()
    for source, sent in answers:
        page.add_sent(sent, source)
    found = list(openmetrics(render(page, OPENMETRICS).decode()))
    assert sum(len(family.samples) for family in found) == len(page)


def test_many_mutations_and_one_declared_error_each() -> None:
    """Without a framework, so that a million take minutes."""
    chance = random.Random(EXAMPLES)
    kinds = ("flip", "drop", "insert", "double")
    seeds = [*((each, parse) for each in REQUESTS), *((each, _answer) for each in ANSWERS), (_page(), unpack_page)]
    for number in range(EXAMPLES):
        for seed, read in seeds:
            edits = [
                (chance.choice(kinds), chance.randrange(2**16), chance.randrange(256)) for _ in range(1 + number % 8)
            ]
            with contextlib.suppress(WireError if read is not parse else HttpError):
                read(mutate(seed, edits))


def _answer(data: bytes) -> None:
    page = Page()
    page.add_sent(unpack(data, 256 * 1024, 16_384).get("metrics"), "hostile")
    render(page, OPENMETRICS)


def test_hostile_bytes_cost_no_more_than_they_are() -> None:
    chance = random.Random(7)
    arrays = b"\x81\xa8families\xdc\x40\x00" + b"\x94" * 100_000
    announced = b"\x81\xa7metrics\xdd\xff\xff\xff\xff" * 1000
    tracemalloc.start()
    try:
        for data in (arrays, announced, chance.randbytes(100_000), b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 2000):
            consume_page(data)
            consume_answer(data)
            with contextlib.suppress(HttpError):
                parse(data[:MAX_HEAD])
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()
