"""A full node: members, their status, and the answer to each request, by example."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgpack
import pytest

from edge_agent.peers import full, members, serving
from edge_agent.peers.frames import MAX_WHY, request
from edge_agent.peers.wire import Beat, Echo, pack_beat, unpack_beat
from tests.fakes.link import FullSide
from tests.fakes.logs import FakeBlobs, FakeLog, Machine

A, B = "A" * 40, "B" * 40
FIRST = {"node": "kitchen", "release": "0.1.0", "every": 10}


class Rig:
    """A full node, and a light one that says what a test wants."""

    def __init__(self, log: FakeLog | None = None, *blobs: bytes, keys: tuple[str, ...] = (A, B)) -> None:
        self.machine = Machine(log, FakeBlobs(*blobs))
        self.side = FullSide("attic", self.machine, keys, [log.verifier] if log else [])
        self.now, self.id = 0.0, 0

    def say(self, op: str, key: str = A, route: bytes = b"r1", number: int | None = None, **args: Any) -> Any:
        self.id = self.id + 1 if number is None else number
        return self.raw(request(self.id, op, args), key, route)

    def raw(self, data: bytes, key: str = A, route: bytes = b"r1") -> Any:
        answers = self.side.hear(key, route, data, self.now)
        assert len(answers) <= 1
        return msgpack.unpackb(answers[0]) if answers else None

    def hello(self, key: str = A, route: bytes = b"r1", **more: Any) -> Any:
        return self.say("beat", key, route, set={**FIRST, **more})

    def code(self, answer: Any) -> str:
        code: str = answer["error"]["code"]
        return code

    def view(self, key: str = A) -> members.View:
        return next(view for view in self.side.full.views() if view.key == key)


def since(size: int) -> dict[str, Any]:
    return {"from": size}


def test_a_first_beat_is_answered_with_who_is_here() -> None:
    rig = Rig()
    answer = rig.hello()
    assert {key: answer[key] for key in ("v", "id", "node", "release")} == {
        "v": 2,
        "id": 1,
        "node": "attic",
        "release": "0.1.0",
    }
    assert rig.view().state == "up"
    assert rig.view().status == FIRST


def test_a_difference_needs_the_beat_it_is_from() -> None:
    rig = Rig()
    rig.hello()
    assert "again" not in rig.say("beat", base=1, set={"memory": 5})
    assert "again" not in rig.say("beat", base=2)
    assert rig.say("beat", base=1, set={"memory": 9})["again"] is True
    assert rig.view().status["memory"] == 5
    rig.say("beat", base=3, set={"memory": None})
    assert "memory" not in rig.view().status


@pytest.mark.parametrize(
    "told",
    [
        None,
        {},
        {"node": "n", "release": "r"},
        {**FIRST, "every": 0},
        {**FIRST, "every": True},
        {**FIRST, "node": 3},
        {**FIRST, "x" * 33: 1},
        {**FIRST, "a": "x" * 65},
        {**FIRST, "a": -1},
        {**FIRST, "a": 1.5},
        {**FIRST, "a": [1]},
        {**FIRST, **{f"k{number}": number for number in range(40)}},
        {**FIRST, **{f"k{number}" + "x" * 20: "y" * 64 for number in range(29)}},
    ],
)
def test_a_status_beyond_the_bounds_is_refused_and_nothing_changes(told: Any) -> None:
    rig = Rig()
    assert rig.code(rig.say("beat", set=told)) == "bad-request"
    assert rig.view().state == "never"
    rig.hello()
    if isinstance(told, dict) and len(told) > 3:
        assert rig.code(rig.say("beat", base=2, set=told)) == "bad-request"
        assert rig.view().status == FIRST


def test_three_missed_intervals_of_its_own_make_it_down_and_a_beat_brings_it_back() -> None:
    rig = Rig()
    rig.hello()
    rig.hello(B, b"r2", every=100)
    rig.now = 29.0
    rig.say("beat", base=1)
    assert rig.side.full.deadline() == 30.0
    rig.side.full.step(full.Tick(), 30.0)  # the table looks, and moves on
    assert rig.view().state == "up"
    assert rig.side.full.deadline() == 59.0
    rig.side.full.step(full.Tick(), 59.0)
    assert (rig.view().state, rig.view(B).state) == ("down", "up")
    rig.now = 60.0
    assert rig.code(rig.say("beat", base=3)) == "no-session"
    rig.hello()
    assert rig.view().state == "up"


def test_only_a_first_beat_begins_a_session_and_a_new_one_ends_the_old() -> None:
    rig = Rig()
    assert rig.code(rig.say("peers")) == "no-session"
    rig.hello()
    assert rig.say("peers") == {"v": 2, "id": 3, "peers": []}
    assert rig.code(rig.say("peers", route=b"r2")) == "no-session"
    rig.hello(route=b"r2")
    assert rig.code(rig.say("peers", route=b"r1")) == "no-session"
    assert "error" not in rig.say("peers", route=b"r2")


def test_a_replayed_request_is_refused() -> None:
    rig = Rig()
    rig.hello()
    rig.say("peers", number=7)
    for number in (7, 6, 1):
        assert rig.code(rig.say("peers", number=number)) == "replay"
    assert "error" not in rig.say("peers", number=8)


def test_a_key_that_is_no_member_any_more_is_not_heard() -> None:
    rig = Rig()
    rig.hello()
    rig.side.full.members.replace([B])
    assert rig.say("peers") is None
    assert [view.key for view in rig.side.full.views()] == [B]
    rig.side.full.step(full.Tick(), 1e6)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "malformed"),
        (b"\xc1", "malformed"),
        (b"\x80", "version"),
        (msgpack.packb({"v": 3, "id": 4, "op": "beat"}), "version"),
        (msgpack.packb({"v": 2, "id": 0, "op": "beat"}), "malformed"),
        (msgpack.packb({"v": 2, "id": 4}), "malformed"),
        (msgpack.packb({"v": 2, "id": 2**63, "op": "beat"}), "malformed"),
        (msgpack.packb({"v": 2, "id": 4, "op": "x" * 33}), "malformed"),
    ],
)
def test_what_is_no_frame_is_refused_with_its_number_if_there_is_one(data: bytes, code: str) -> None:
    rig = Rig()
    rig.hello()
    answer = rig.raw(data)
    assert rig.code(answer) == code
    assert answer["id"] in (0, 4)
    assert len(answer["error"]["why"]) <= MAX_WHY
    if code == "version":
        assert answer["error"]["speaks"] == [2]
    assert rig.view().refused == 1


def test_an_unknown_operation_is_refused_by_name() -> None:
    rig = Rig()
    rig.hello()
    assert rig.code(rig.say("dance")) == "unknown-op"


def test_too_many_requests_too_fast_are_refused_and_later_served_again() -> None:
    rig = Rig()
    rig.hello()
    codes = [rig.say("peers").get("error", {}).get("code", "") for _ in range(100)]
    assert codes == [""] * 63 + ["busy"] * 37
    rig.now = 1.0
    assert [rig.say("peers").get("error", {}).get("code", "") for _ in range(20)] == [""] * 16 + ["busy"] * 4


def test_requests_in_work_are_bounded_for_each_member() -> None:
    log = FakeLog(entries=3)
    node = full.Full("n", "r", [A], 1)
    node.step(full.Heard(A, b"r", request(1, "beat", {"set": FIRST})), 0.0)
    asked = 0
    for number in range(2, 20):
        actions = node.step(full.Heard(A, b"r", request(number, "blob", blob())), 0.0)
        asked += any(isinstance(action, full.Ask) for action in actions)
    assert asked == members.MOST_JOBS
    done = node.step(full.Told(2, {"data": b"x", "size": 1}), 0.0)
    assert isinstance(done[0], full.Send)
    assert node.step(full.Told(2, {"data": b"x", "size": 1}), 0.0) == []  # answered once
    actions = node.step(full.Heard(A, b"r", request(30, "blob", blob())), 0.0)
    assert isinstance(actions[0], full.Ask)
    assert log.entries


def blob() -> dict[str, Any]:
    return {"hash": bytes(32), "offset": 0, "length": 1}


# -- version 1


def test_a_beat_of_version_1_is_echoed_and_its_sender_is_up() -> None:
    rig = Rig()
    answers = rig.side.hear(A, b"r9", pack_beat(Beat("old", "0.0.9", 5, 10.0)), 0.0)
    assert [unpack_beat(data) for data in answers] == [Echo("attic", "0.1.0", 5)]
    view = rig.view()
    assert (view.state, view.node, view.release, view.version) == ("up", "old", "0.0.9", 1)
    assert rig.code(rig.say("peers", route=b"r9")) == "no-session"  # nothing but being there
    assert rig.side.full.deadline() == 30.0


def test_an_echo_of_version_1_is_not_answered_as_a_beat() -> None:
    rig = Rig()
    assert rig.code(rig.raw(pack_beat(Echo("x", "y", 1)))) == "version"


# -- ledger and storage


def test_a_head_comes_with_the_proof_from_what_is_known() -> None:
    log = FakeLog(entries=9)
    rig = Rig(log)
    rig.hello()
    answer = rig.say("head", origin="log.example", **since(4))
    assert answer["note"] == log.note()
    assert answer["proof"] == log.answer("consistency", {"from": 4, "to": 9})["proof"]  # type: ignore[index]
    assert "proof" not in rig.say("head", origin="log.example", **since(9))
    assert "proof" not in rig.say("head", origin="log.example")
    assert rig.code(rig.say("head", origin="other")) == "unknown-log"
    assert rig.code(rig.say("head", origin=7)) == "bad-request"


def test_the_ledger_is_not_asked_again_for_what_was_just_said() -> None:
    rig = Rig(FakeLog(entries=9))
    rig.hello()
    for _ in range(10):
        rig.say("head", origin="log.example", **since(4))
    assert [call.op for call in rig.machine.calls] == ["head", "consistency"]
    rig.now = serving.FRESH
    rig.say("head", origin="log.example", **since(4))
    assert [call.op for call in rig.machine.calls] == ["head", "consistency", "head"]


def test_a_new_head_and_new_evidence_change_the_news() -> None:
    log = FakeLog(entries=9)
    rig = Rig(log)
    seen = [rig.hello()["news"]]
    for step in ("rest", "grow", "rest", "accuse", "rest"):
        rig.now += 10.0
        if step == "grow":
            log.grow(1)
        if step == "accuse":
            fork = {"origin": "log.example", "kind": "fork", "held": log.note(9)}
            fork["shown"] = log.fork(8).grow(1, b"other").note()
            assert rig.say("announce", evidence=fork)["kept"] is True
            assert rig.say("announce", evidence=fork)["kept"] is False
        for _ in range(2):  # the first brings the ledger's head, the second tells
            told = rig.say("beat", base=rig.id if step != "accuse" else 0)
            if "error" in told:
                told = rig.hello()
        seen.append(told["news"])
    changes = [later != earlier for earlier, later in pairwise(seen)]
    assert changes == [True, True, False, True, False]
    assert [each["kind"] for each in rig.say("announced")["evidence"]] == ["fork"]


def test_evidence_of_a_log_without_a_key_here_and_false_evidence_are_not_kept() -> None:
    log, other = FakeLog(entries=4), FakeLog("else", entries=4)
    rig = Rig(log)
    rig.hello()
    pair = {"kind": "fork", "held": other.note(4), "shown": other.note(3)}
    assert rig.say("announce", evidence={"origin": "else", **pair})["kept"] is False
    assert rig.code(rig.say("announce", evidence={"origin": "log.example", **pair})) == "bad-request"
    assert rig.code(rig.say("announce", evidence=[1])) == "bad-request"
    assert rig.say("announced")["evidence"] == []


def test_without_a_ledger_the_answer_is_unavailable_and_beats_go_on() -> None:
    rig = Rig(None)
    rig.hello()
    assert rig.code(rig.say("head", origin="log.example")) == "unavailable"
    assert rig.code(rig.say("inclusion", origin="log.example", size=1, index=0)) == "unknown-log"
    assert "error" not in rig.say("beat", base=1)


def test_inclusion_entries_consistency_submit_and_blob_are_passed_on() -> None:
    log = FakeLog(entries=9)
    rig = Rig(log, b"blob")
    rig.hello()
    rig.say("head", origin="log.example")
    where: dict[str, Any] = {"origin": "log.example", "size": 9}
    by_index = rig.say("inclusion", **where, index=3)
    by_hash = rig.say("inclusion", **where, hash=log.leaves(9)[3])
    assert by_index["hash"] == log.leaves(9)[3]
    assert (by_hash["index"], by_hash["proof"]) == (3, by_index["proof"])
    some = rig.say("entries", **where, start=7, most=64)
    assert (some["entries"], len(some["proofs"])) == (log.entries[7:], 2)
    assert rig.code(rig.say("entries", **where, start=9, most=1)) == "bad-request"
    assert rig.code(rig.say("inclusion", **where, hash=bytes(32))) == "not-found"
    assert rig.say("consistency", origin="log.example", to=9, **since(2))["proof"]
    assert rig.say("submit", origin="log.example", entry=b"new")["index"] == 9
    piece = rig.say("blob", hash=next(iter(rig.machine.blobs.blobs)), offset=1, length=2)
    assert (piece["data"], piece["size"]) == (b"lo", 4)


def test_a_ledger_that_answers_nonsense_is_said_to_have_failed() -> None:
    class Mad(Machine):
        def answer(self, call: serving.Call) -> dict[str, Any]:
            return {"checkpoint": b"x", "proof": 3, "data": 1}

    rig = Rig()
    rig.side.machine = Mad()
    rig.hello()
    assert rig.code(rig.say("head", origin="log.example")) == "failed"
    assert rig.code(rig.say("blob", **blob())) == "failed"


def test_ten_thousand_members_cost_a_beat_no_more_than_a_hundred() -> None:
    """Counted, not timed: what a beat touches of the table of deadlines does not grow with it."""
    for count in (100, 10_000):
        keys = [f"{number:040}" for number in range(count)]
        node = full.Full("n", "r", keys, 1)
        for number, key in enumerate(keys):
            node.step(full.Heard(key, b"%d" % number, request(1, "beat", {"set": FIRST})), 0.0)
        heap = node.members._heap
        before = list(heap)
        for beat in range(2, 5):
            node.step(full.Heard(keys[7], b"7", request(beat, "beat", {"base": beat - 1})), float(beat))
        assert heap == before
