"""Pages of metrics, and their text as an independent parser reads it."""

from __future__ import annotations

import math
import shutil
import subprocess
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from edge_agent.peers.wire import WireError, pack
from edge_agent.services import telemetry_text as text
from edge_agent.services.metrics import COUNTER, GAUGE, Metric, counter, gauge
from edge_agent.services.telemetry_text import OPENMETRICS, TEXT, Page, chosen, pack_page, render, unpack_page

NASTY = 'a "quoted" \\ back\nslash \N{SNOWMAN}'


def page() -> Page:
    made = Page()
    made.add(gauge("edge_agent_up", "1: up.", 1))
    made.add(Metric("x_bytes", GAUGE, NASTY, (({"a": NASTY}, 1.5), ({"a": "2"}, math.inf), ({}, math.nan))))
    made.add(Metric("asked_total", COUNTER, "So often.", (({"by": "x"}, 2**63), ({"by": "y"}, 0.25))))
    return made


def read(data: bytes, form: str) -> dict[str, Any]:
    families = (openmetrics if form == OPENMETRICS else prometheus)(data.decode())
    return {family.name: family for family in families}


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
def test_an_independent_parser_reads_what_was_meant(form: str) -> None:
    found = read(render(page(), form), form)
    assert sorted(found) == ["asked", "edge_agent_up", "x_bytes"]
    assert (found["asked"].type, found["x_bytes"].type) == ("counter", "gauge")
    assert found["x_bytes"].documentation == NASTY
    samples = {sample.labels.get("a"): sample.value for sample in found["x_bytes"].samples}
    assert samples[NASTY] == 1.5
    assert samples["2"] == math.inf
    assert math.isnan(samples[None])
    asked = [(sample.name, sample.labels, sample.value) for sample in found["asked"].samples]
    assert asked == [("asked_total", {"by": "x"}, 2.0**63), ("asked_total", {"by": "y"}, 0.25)]


def test_promtool_finds_nothing_to_say() -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool here: tests/install installs it on Debian")
    made = Page()
    made.add(gauge("edge_agent_up", "1: up.", 1))
    made.add(Metric("edge_agent_asked_total", COUNTER, NASTY, (({"by": NASTY}, 3),)))
    done = subprocess.run([tool, "check", "metrics"], input=render(made), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_families_of_one_name_are_one_and_keep_their_kind() -> None:
    made = Page()
    made.add_sent([["pss_bytes", "gauge", "Size.", [[{}, 1]]]], "storage")
    made.add_sent([["pss_bytes", "gauge", "Another.", [[{}, 2]]]], "node")
    made.add_sent([["asked_total", "counter", "Asked.", [[{}, 3]]]], "node")
    made.add_sent([["asked_total", "gauge", "Asked.", [[{}, 3]]]], "storage")
    metric, _asked = made
    assert metric == Metric(
        "edge_agent_pss_bytes", GAUGE, "Size.", (({"service": "storage"}, 1), ({"service": "node"}, 2))
    )
    assert made.dropped == {"storage": 1}, "it has another kind already"


def test_no_family_takes_the_name_of_anothers_sample() -> None:
    made = Page()
    made.add(counter("a_total", "A.", 1))
    for name in ("a", "a_created"):
        made.add(gauge(name, "Not A.", 1), "liar")
    made.add(gauge("b", "B.", 1))
    made.add(counter("b_total", "Not B.", 1), "liar")
    assert made.dropped == {"liar": 3}
    read(render(made, OPENMETRICS), OPENMETRICS)


def test_labels_of_the_source_go_over_its_own() -> None:
    made = Page()
    made.add_sent([["x", "gauge", "X.", [[{"service": "somebody else", "b": "1"}, 1]]]], "storage")
    assert [metric.samples for metric in made] == [(({"b": "1", "service": "storage"}, 1),)]


def test_one_set_of_labels_counts_once() -> None:
    made = Page()
    made.add_sent([["x", "gauge", "X.", [[{"a": "1"}, 1], [{"a": "1"}, 2]]]], "storage")
    assert len(made) == 1
    assert made.dropped == {"storage": 1}


@pytest.mark.parametrize(
    "sent",
    [
        None,
        {},
        [[]],
        [["x", "gauge", "X."]],
        [["x", "histogram", "X.", []]],
        [["1x", "gauge", "X.", []]],
        [["x:y", "gauge", "X.", []]],
        [["x" * 101, "gauge", "X.", []]],
        [["x", "gauge", 1, []]],
        [["x", "gauge", "X.", {}]],
        [["x", "gauge", "X.", [[{}]]]],
        [["x", "gauge", "X.", [[{}, "1"]]]],
        [["x", "gauge", "X.", [[{}, True]]]],
        [["x", "gauge", "X.", [[[], 1]]]],
        [["x", "gauge", "X.", [[{"__name__": "y"}, 1]]]],
        [["x", "gauge", "X.", [[{"a-b": "y"}, 1]]]],
        [["x", "gauge", "X.", [[{"a": 1}, 1]]]],
        [["x", "gauge", "X.", [[{"a": "v" * 129}, 1]]]],
        [["x", "gauge", "X.", [[{f"a{i}": "" for i in range(9)}, 1]]]],
        [["x", "counter", "X.", [[{}, -1]]]],
        [["x", "counter", "X.", [[{}, math.nan]]]],
    ],
)
def test_what_is_no_metric_is_left_out_and_counted(sent: object) -> None:
    made = Page()
    made.add_sent(sent, "storage")
    made.add_sent([["fine", "gauge", "Fine.", [[{}, 1]]]], "node")
    assert made.dropped == {"storage": 1}
    assert [metric.name for metric in made if metric.samples] == ["edge_agent_fine"]


def test_a_source_has_bounds_and_so_has_the_page() -> None:
    made = Page()
    made.add_sent([["x", "gauge", "X.", [[{"n": str(n)}, n] for n in range(600)]]], "much")
    assert (len(made), made.dropped) == (512, {"much": 88})
    made.add_sent([[f"f{n}", "gauge", "F.", [[{}, n]]] for n in range(130)], "many")
    assert (len(made), made.dropped["many"]) == (640, 2)
    for each in range(20):
        made.add_sent([["x", "gauge", "X.", [[{"n": str(n)}, n] for n in range(512)]]], f"s{each}")
    assert len(made) == text.MAX_PAGE


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2", OPENMETRICS),
        ("text/plain;q=0.5, Application/OpenMetrics-Text; version=1.0.0", OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1,text/plain", OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0,text/plain", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        (";;,,;q", TEXT),
    ],
)
def test_the_form_is_the_one_asked_for(accept: str, form: str) -> None:
    assert chosen(accept) == form


def test_a_page_travels_as_bytes() -> None:
    made = page()
    made.add_sent([["x", "gauge", "X.", [[{f"a{i}": str(i) for i in range(8)}, 1]]]], "storage")
    found = unpack_page(pack_page(made))
    assert repr(found) == repr(list(made)), "by what it shows: a NaN is no other"


def test_of_a_page_that_is_too_long_the_end_is_left_out() -> None:
    made = Page()
    for each in range(16):
        rest = [[{"n": str(n), "v": "x" * 128}, n] for n in range(512)]
        made.add_sent([[f"f{each}", "gauge", "F.", rest]], "much")
    data = pack_page(made)
    assert len(data) <= text.MAX_PACKED
    assert [metric.name for metric in unpack_page(data)][:2] == ["edge_agent_f0", "edge_agent_f1"]


@pytest.mark.parametrize("data", [b"", b"\xc1", pack({"families": [[[[[[[[]]]]]]]]}), b"\x81\xa1a\xdd\xff\xff\xff\xff"])
def test_bytes_that_are_no_page_have_one_error(data: bytes) -> None:
    with pytest.raises(WireError):
        unpack_page(data)


def test_a_page_without_families_is_empty() -> None:
    assert unpack_page(pack({})) == unpack_page(pack({"families": 5})) == unpack_page(pack({"families": [5]})) == []
