"""Verbs that show: status, events, logs, why."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from edge_agent.cli import exits, logs, statusview, why
from edge_agent.control.connection import Request
from edge_agent.text import WIDTH

from .fakes import (
    NOW,
    FakeAgent,
    Run,
    service,
    status,
)


def test_status_as_json_is_the_agents_answer(run: Run, agent: FakeAgent) -> None:
    result = run("status", "--json")
    assert result.code == 0
    assert json.loads(result.out) == agent.answers["status"]


def test_status_as_text(run: Run, agent: FakeAgent) -> None:
    agent.answers["status"] = status(degraded="the profile is broken", switching="from a to b")
    out = run("status").out
    assert "DEGRADED: the profile is broken\n" in out
    assert "switching from a to b\n" in out
    assert re.search(
        r"^storage +ready +4242 +5.0 MiB +20.0 MiB +0.031 +0.50 +0 +yes +memory, cpu, pids, oom group enforced$",
        out,
        re.M,
    )
    assert "because" not in out


def test_what_is_not_enforced_is_said_once_with_its_fix() -> None:
    sampled = {
        "memory": {"kind": "sampled", "code": "no-cgroup2"},
        "cpu": {"kind": "not enforced", "code": "no-cgroup2"},
    }
    lines = statusview.not_enforced(dict.fromkeys(("a", "b", "c"), sampled))
    text = "\n".join(lines)
    assert text.count("because") == 2
    assert re.search(r"^memory: sampled, because .*\n?.*; fix: ", text, re.M)
    assert max(map(len, lines)) <= WIDTH


def test_services_are_named_when_only_some_are_concerned() -> None:
    held, lost = {"kind": "enforced", "code": ""}, {"kind": "not enforced", "code": "refused:EINVAL"}
    lines = statusview.not_enforced({"a": {"io": held}, "b": {"io": lost}, "c": {"io": {"kind": "unset", "code": ""}}})
    assert lines[0].startswith("io of b: not enforced, because the kernel refused")
    assert statusview.not_enforced({"a": {"io": held}}) == []


def test_what_a_service_has_of_its_sandbox_is_one_word() -> None:
    def word(**kinds: str) -> str:
        return statusview.confined({name: {"kind": kind, "code": ""} for name, kind in kinds.items()})

    assert word() == word(read_only="unset") == "-"
    assert word(read_only="enforced", private_tmp="unset") == "yes"
    assert word(read_only="enforced", private_tmp="not enforced") == "partly"
    assert word(read_only="not enforced") == "no"


def test_an_agent_from_before_sandboxes_has_a_status(run: Run, agent: FakeAgent) -> None:
    old = status()
    for entry in old["services"].values():
        del entry["sandbox"]
    agent.answers["status"] = old
    assert run("status").code == 0


def test_an_unknown_code_of_a_newer_agent_is_passed_on() -> None:
    report = {"gpu": {"kind": "odd", "code": "new-thing"}}
    assert "new-thing" in "\n".join(statusview.not_enforced({"a": report}))
    assert statusview.summary(report) == "gpu odd"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0.0 s"),
        (4.21, "4.2 s"),
        (59.9, "60 s"),
        (60, "1 min"),
        (3599, "59 min 59 s"),
        (7260, "2 h 1 min"),
        (864000, "10 d"),
    ],
)
def test_spans(seconds: float, expected: str) -> None:
    assert statusview.span(seconds) == expected


def test_a_terminal_is_safe_from_texts(run: Run, agent: FakeAgent) -> None:
    agent.event("exited", "storage", "said \x1b[2J\nand\u202e more")
    out = run("events").out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert len(out.splitlines()) == 1


def test_events_as_text_json_and_of_one_service(run: Run, agent: FakeAgent) -> None:
    agent.event("ready", "storage", "ready after 0.1 s")
    agent.event("exited", "node", "exit code 1")
    assert [line.split("  ", 1)[1] for line in run("events").out.splitlines()] == [
        "ready storage: ready after 0.1 s",
        "exited node: exit code 1",
    ]
    assert [json.loads(line) for line in run("events", "--json").out.splitlines()] == agent.events
    assert "storage" not in run("events", "--service", "node").out


def test_following_events_ends_with_the_agent(run: Run, agent: FakeAgent) -> None:
    """A follower asks with a long wait; the agent's end closes the connection, which is not an error."""
    agent.event("ready", "storage", "one")
    other = agent.answers["events"]

    def hang_up(request: Request) -> Any:
        if request.args["wait"] > 0:
            request._connection.close()  # type: ignore[union-attr]  # a pending request has its connection
            return None
        return other(request)

    agent.answers["events"] = hang_up
    result = run("events", "-f")
    assert result.code == 0
    assert result.out.count("\n") == 1


def log_of(data: bytes, chunk: int = 7) -> Callable[[Request], dict[str, Any]]:
    """A log that comes in pieces."""

    def answer(request: Request) -> dict[str, Any]:
        cursor = max(0, request.args["cursor"])
        piece = data[cursor : cursor + chunk]
        return {"data": piece, "cursor": cursor + len(piece)}

    return answer


def test_logs(run: Run, agent: FakeAgent) -> None:
    text = "one\ntwo\nthrée\nfour"
    agent.answers["logs"] = log_of(text.encode())
    assert run("logs", "storage").out == text
    assert run("logs", "storage", "-n", "2").out == "thrée\nfour"
    assert run("logs", "storage", "-n", "0").out == ""
    lines = [json.loads(line) for line in run("logs", "storage", "--json").out.splitlines()]
    assert [line["line"] for line in lines] == text.split("\n")
    assert agent.asked[0][1] == {"name": "storage", "cursor": 0, "wait": 0.0}


@pytest.mark.parametrize(
    ("data", "count", "expected"),
    [
        (b"", 3, b""),
        (b"a\nb\nc\n", 1, b"c\n"),
        (b"a\nb\nc\n", 3, b"a\nb\nc\n"),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"\n\n\n", 2, b"\n\n"),
    ],
)
def test_last_lines(data: bytes, count: int, expected: bytes) -> None:
    assert logs.last_lines(data, count) == expected


def test_an_unknown_service_is_named_with_the_nearest(run: Run, agent: FakeAgent) -> None:
    assert agent is not None
    for words in (["why", "storge"], ["start", "storge"]):
        result = run(*words)
        assert result.code == exits.FAILED
        assert "did you mean 'storage'?" in result.err


def story(**changes: Any) -> str:
    told = status(services={"storage": service(**changes), "identity": service(state="backoff")})
    return "\n".join(why.tell("storage", told, [], NOW))


def test_why_tells_the_story(run: Run, agent: FakeAgent) -> None:
    agent.event("oom", "storage", "killed by its own limit of 20.0 MiB")
    agent.event("ready", "node", "elsewhere")
    result = run("why", "storage")
    assert result.code == 0
    assert "killed by its own limit" in result.out
    assert "elsewhere" not in result.out
    shown = json.loads(run("why", "storage", "--json").out)
    assert (shown["name"], len(shown["events"])) == ("storage", 1)


def test_why_names_cause_time_and_next_start() -> None:
    text = story(
        state="backoff",
        reason="waits before attempt 3",
        pid=None,
        next=NOW + 8,
        restarts=2,
        attempts=2,
        last_exit={"text": "killed by its own memory limit", "time": NOW - 2},
    )
    assert "waits before attempt 3" in text
    assert "started again in 8.0 s" in text
    assert "restarted 2 times" in text
    assert "ended 2.0 s ago: killed by its own memory limit" in text


def test_why_names_what_is_waited_for_and_who_stopped_it() -> None:
    assert "depends on identity, which is backoff" in story(state="waiting", depends_on=["identity"])
    assert "edge-agent start storage" in story(state="off", down=True)
    assert "edge-agent restart storage" in story(state="quarantined")
    assert "not enforced, because" in story(enforcement={"cpu": {"kind": "not enforced", "code": "no-controller"}})


def governed(**grip: Any) -> dict[str, Any]:
    """A status in which the governor withholds something from storage."""
    told = {"service": "storage", "resource": "memory", "level": "shed", "since": NOW - 60, "until": NOW + 30, **grip}
    text = "memory some 34% over 30% for 1.2 s; frees 310 MiB; next: telemetry"
    shed = text if told["level"] == "shed" else ""
    state = {"state": "off", "pid": None, "shed": shed} if shed else {}
    return status(
        services={"storage": service(**state), "node": service(state="waiting", depends_on=["storage"])},
        governor={"held": [{"why": text, **told}], "next": NOW + 30},
    )


def test_status_tells_what_is_withheld_why_and_until_when() -> None:
    out = "\n".join(statusview.render(governed(), NOW))
    assert re.search(r"^storage +off \(shed\) ", out, re.M)
    assert (
        "storage is shed, since 1 min: memory some 34% over 30% for 1.2 s; frees 310 MiB; next: telemetry;"
        in out.replace("\n  ", " ")
    )
    assert "given back in 30 s if it stays calm" in out.replace("\n  ", " ")
    squeezed = " ".join(statusview.held(governed(level="squeezed", resource="cpu", until=NOW - 1), NOW))
    assert squeezed.startswith("storage is squeezed in cpu, since 1 min: ")
    assert squeezed.endswith("given back as soon as it fits if it stays calm")
    assert statusview.held(status(), NOW) == [], "an older agent withholds nothing"


def test_why_tells_that_a_service_is_shed_and_how_it_comes_back() -> None:
    text = "\n".join(why.tell("storage", governed(), [], NOW))
    assert "edge-agent start storage" in text
    assert "frees 310 MiB" in text
    assert "depends on storage, which is off (shed)" in "\n".join(why.tell("node", governed(), [], NOW))
    fresh = {**governed(), "governor": {"held": [], "next": None}}
    assert "storage is shed: memory some 34%" in "\n".join(why.tell("storage", fresh, [], NOW))
