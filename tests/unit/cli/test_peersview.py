"""The table of ``edge-agent peers``."""

from __future__ import annotations

from typing import Any

from edge_agent.cli.peersview import render

FULL = {
    "endpoint": "tcp://10.0.0.1:4001", "key": "k" * 40, "state": "up", "node": "hub", "release": "0.1.0", "age": 3.0,
    "rtt": 0.012, "failures": 0, "refused": 0, "why": "", "until": None,
}  # fmt: skip
LIAR = FULL | {"endpoint": "tcp://10.0.0.2:4001", "state": "distrusted", "refused": 2, "until": 540.0, "node": "x"}
HEAD = {
    "origin": "hub/log", "size": 21, "root": bytes(range(32)), "time": 90.0, "source": "tcp://10.0.0.1:4001",
    "forked": False, "checked": 4,
}  # fmt: skip
REFUSED = {"age": 61.0, "endpoint": "tcp://10.0.0.2:4001", "code": "wrong-head", "why": "not signed"}


def told(**change: Any) -> dict[str, Any]:
    made = {"mode": "light", "key": "p" * 40, "peers": [FULL, LIAR], "heads": [HEAD], "refused": [REFUSED]}
    counts = {"head": 4, "inclusion": 7, "refused wrong-head": 2}
    return made | {"counts": counts, "evidence": [{"origin": "hub/log", "kind": "fork"}]} | change


def test_a_light_node_shows_peers_heads_checks_and_refusals() -> None:
    lines = render(told(), 100.0)
    text = "\n".join(lines)
    assert "light node, public key " + "p" * 40 in lines[0]
    for part in ("12 ms", "distrusted (9 min)", "hub/log", "0001020304050607", "10 s ago"):
        assert part in text, part
    assert "checked: 4 head, 7 inclusion; refused: 2" in lines
    assert "refused 1 min 1 s ago from tcp://10.0.0.2:4001: wrong-head: not signed" in lines
    assert "EVIDENCE of a fork of log hub/log" in text


def test_a_forked_log_says_so() -> None:
    assert any(line.endswith("FORKED") for line in render(told(heads=[HEAD | {"forked": True}]), 100.0))


def test_a_full_node_shows_what_light_ones_say_of_themselves() -> None:
    status = {"profile": "edge", "memory": 40, "cpu": 10, "up": 3, "of": 4, "degraded": True}
    light = {"key": "k" * 40, "state": "up", "node": "one", "release": "0.1.0", "age": 2.0, "refused": 0}
    silent: dict[str, Any] = {"key": "j" * 40, "state": "never", "node": "", "release": "", "refused": 0}
    silent |= {"age": None, "status": {}}
    peers = [light | {"version": 2, "status": status}, silent]
    text = "\n".join(render(told(mode="full", peers=peers, refused=[], evidence=[]), 100.0))
    for part in ("edge DEGRADED", "40%", "3 of 4", "kkkkkkkk...", "never"):
        assert part in text, part
    assert "answered: " in text


def test_nothing_to_show_is_said() -> None:
    empty = told(peers=[], heads=[], refused=[], evidence=[], counts={})
    text = "\n".join(render(empty, 100.0))
    assert "no peers are configured" in text
    assert "no logs" in text
