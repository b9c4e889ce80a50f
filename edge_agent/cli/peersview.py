"""The node service's answers as text. Pure: answers and the time in, lines out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import text
from .statusview import span, wrapped

LAST = 8
"""Refusals told."""


def render(told: Mapping[str, Any], now: float) -> list[str]:
    """Lines: who is there, the logs that are believed, what was checked, and what was refused."""
    counts: Mapping[str, int] = told["counts"]
    held = {name: times for name, times in counts.items() if " " not in name}
    lines = [f"{told['mode']} node, public key {told['key']}", "", *_peers(told["mode"], told["peers"])]
    lines += ["", *_heads(told["heads"], now)]
    refused = sum(times for name, times in counts.items() if name.startswith("refused"))
    answered = ", ".join(f"{times} {name}" for name, times in sorted(held.items())) or "none yet"
    lines += ["", f"{'checked' if told['mode'] == 'light' else 'answered'}: {answered}; refused: {refused}"]
    for each in told["refused"][-LAST:]:
        lines += wrapped(f"refused {span(each['age'])} ago from {each['endpoint']}: {each['code']}: {each['why']}")
    for each in told["evidence"]:
        lines += wrapped(f"EVIDENCE of a {each['kind']} of log {each['origin']}: two heads that its key has signed")
    return lines


def _peers(mode: str, peers: Sequence[Mapping[str, Any]]) -> list[str]:
    if not peers:
        return ["no peers are configured" if mode == "light" else "no light node may connect"]
    return _fulls(peers) if mode == "light" else _lights(peers)


def _fulls(peers: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            str(peer["endpoint"]),
            _state(peer),
            str(peer["node"] or text.NOTHING),
            str(peer["release"] or text.NOTHING),
            _ago(peer["age"]),
            text.NOTHING if peer["rtt"] is None else f"{peer['rtt'] * 1000:.0f} ms",
            str(peer["failures"]),
            str(peer["refused"]),
        )
        for peer in peers
    ]
    return text.table(("full peer", "state", "node", "release", "seen", "rtt", "failures", "refused"), rows, "<<<<>>>>")


def _lights(peers: Sequence[Mapping[str, Any]]) -> list[str]:
    header = ("light node", "state", "release", "seen", "profile", "memory", "cpu", "services", "refused", "key")
    rows = [
        (
            str(peer["node"] or text.NOTHING),
            str(peer["state"]),
            str(peer["release"] or text.NOTHING),
            _ago(peer["age"]),
            str(peer["status"].get("profile", text.NOTHING)) + (" DEGRADED" if peer["status"].get("degraded") else ""),
            _percent(peer["status"].get("memory")),
            _percent(peer["status"].get("cpu")),
            _services(peer["status"]),
            str(peer["refused"]),
            f"{peer['key'][:8]}...",
        )
        for peer in peers
    ]
    return text.table(header, rows, "<<<><>>>><")


def _heads(heads: Sequence[Mapping[str, Any]], now: float) -> list[str]:
    if not heads:
        return ["no logs"]
    rows = [
        (
            str(head["origin"]),
            text.NOTHING if head["size"] is None else str(head["size"]),
            head["root"].hex()[:16] or text.NOTHING,
            text.NOTHING if head["time"] is None else _ago(now - head["time"]),
            str(head["source"] or text.NOTHING),
            "FORKED" if head["forked"] else str(head["checked"]),
        )
        for head in heads
    ]
    return text.table(("log", "entries", "root", "seen", "from", "checked"), rows, "<>>><>")


def _state(peer: Mapping[str, Any]) -> str:
    until = peer.get("until")
    return str(peer["state"]) if until is None else f"{peer['state']} ({span(until)})"


def _ago(age: float | None) -> str:
    return text.NOTHING if age is None else f"{span(age)} ago"


def _percent(value: object) -> str:
    return text.NOTHING if value is None else f"{value}%"


def _services(status: Mapping[str, Any]) -> str:
    return f"{status['up']} of {status['of']}" if "up" in status and "of" in status else text.NOTHING
