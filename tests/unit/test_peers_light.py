"""A light node beside full ones in memory: connections, questions, and every lie."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

import msgpack
import pytest

from edge_agent import tlog
from edge_agent.peers import events, inquiries, links, session
from edge_agent.peers.frames import answer, refusal
from tests.fakes.link import FullSide, Net
from tests.fakes.logs import FakeBlobs, FakeLog, Machine

BLOB = bytes(range(256)) * 40


def net(*sides: FullSide, log: FakeLog | None = None, **options: Any) -> Net:
    made = Net(*sides, logs=[log.verifier] if log else [], **options)
    made.tick()
    return made


def honest(log: FakeLog | None = None, *blobs: bytes, logs: bool = True) -> FullSide:
    return FullSide("f", Machine(log, FakeBlobs(*blobs)), logs=[log.verifier] if log and logs else [])


def size(made: Net) -> int:
    return made.light.beliefs.logs["log.example"].size


def refusals(made: Net) -> list[str]:
    return [each.code for each in made.light.refused]


def includes(made: Net, entry: bytes, token: object = 1) -> events.Done | events.Failed | None:
    log = made.light.beliefs.logs["log.example"]
    return made.ask(inquiries.includes(token, log, tlog.leaf_hash(entry)))


def fetch(made: Net, blob: bytes, piece: int = 4096, client: str = "c", digest: bytes | None = None) -> bytes | str:
    """The whole blob by pieces, or the code of the refusal."""
    data: bytes = b""
    digest = digest or hashlib.sha256(blob).digest()
    while True:
        token = object()
        inquiry = made.light.transfers.fetch(token, client, digest, len(data), piece, made.now)
        got = made.ask(inquiry)
        if got is None:
            made.tick(20)
            got = made.done[token]
        if isinstance(got, events.Failed):
            return got.code
        data += got.result["data"]
        if len(data) == got.result["size"]:
            return data


def changed(frame: bytes, **change: object) -> bytes:
    """A frame that answers something with these keys, changed."""
    message = msgpack.unpackb(frame)
    if all(key in message for key in change):
        message |= change
    packed: bytes = msgpack.packb(message)
    return packed


# -- connections


def test_without_peers_nothing_is_ever_due() -> None:
    made = net()
    assert made.light.deadline() is None
    made.tick(1e6)
    assert made.sent == []


def test_it_connects_tells_its_whole_status_and_learns_who_answers() -> None:
    made = net(honest())
    view = made.light.views()[0]
    assert (view.state, view.node, view.release, view.failures) == ("up", "f", "0.1.0", 0)
    first = msgpack.unpackb(made.sent[0][1])
    assert first == {"v": 2, "id": 1, "op": "beat", "set": made.status}


def test_beats_follow_at_the_interval_and_an_idle_one_has_no_status() -> None:
    made = net(honest())
    before = len(made.sent)
    made.tick(600.0)
    beats = [msgpack.unpackb(data) for _, data in made.sent[before:]]
    assert len(beats) == 10
    assert all(set(beat) == {"v", "id", "op", "base"} for beat in beats)


def test_a_difference_is_sent_once_and_the_full_node_has_the_whole() -> None:
    side = honest()
    made = net(side)
    made.light.status = {**made.status, "memory": 40}
    made.tick(180.0)
    sets = [msgpack.unpackb(data).get("set") for _, data in made.sent if b"beat" in data]
    assert sets == [made.status, {"memory": 40}, None, None]
    assert side.full.views()[0].status["memory"] == 40
    made.light.status = dict(made.status)
    made.tick(60.0)
    assert "memory" not in side.full.views()[0].status


def test_a_lost_answer_leads_to_the_whole_status_again() -> None:
    side = honest()
    made = net(side)
    made.light.status = {**made.status, "memory": 1}
    side.meddle = lambda _frame: None
    made.tick(75.0)  # the beat arrives, its answer does not: the connection is given up
    side.meddle = lambda frame: frame
    made.tick(30.0)
    assert made.states() == ["up"]
    assert side.full.views()[0].status["memory"] == 1


def test_a_full_node_that_has_forgotten_gets_the_whole_status_on_the_same_connection() -> None:
    side = honest()
    made = net(side)
    member = side.full.members.get(made.key)
    assert member is not None
    member.beat = 77
    made.tick(60.0)
    assert made.routes == 1
    assert [set(msgpack.unpackb(data)) - {"v", "id", "op"} for _, data in made.sent if b"beat" in data] == [
        {"set"},
        {"base"},
        {"set"},
    ]


def test_a_silent_peer_is_tried_ever_more_rarely_up_to_ten_minutes() -> None:
    side = honest()
    side.alive = False
    made = net(side)
    times = []
    for _ in range(14):
        while not made.open:
            made.tick(0.25)
        times.append(made.now)
        while made.open:
            made.tick(0.25)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == sorted(gaps)
    assert gaps[0] == pytest.approx(10.875, abs=0.5)
    assert gaps[-1] == pytest.approx(10 + 600 * 0.875, abs=1)
    assert sum("cannot reach" in note for note in made.notes) == 1  # said once


def test_at_most_three_connections_and_the_next_best_takes_the_place_of_a_lost_one() -> None:
    sides = [honest() for _ in range(5)]
    made = net(*sides)
    assert made.states() == ["up", "up", "up", "down", "down"]
    sides[1].alive = False
    made.tick(75.0)
    assert made.states().count("up") == 3
    assert made.states()[1] != "up"


def test_a_question_while_everything_is_down_tries_at_once() -> None:
    side = honest(FakeLog(), BLOB)
    side.alive = False
    made = net(side)
    made.tick(2000.0)
    side.alive = True
    while made.states() != ["down"]:
        made.tick(1.0)
    made.tick(6.0)
    assert fetch(made, BLOB) == BLOB


def test_offline_is_said_after_a_while() -> None:
    side = honest(FakeLog(), BLOB)
    side.alive = False
    made = net(side)
    made.tick(700.0)
    assert fetch(made, BLOB) == "offline"


# -- heads


def test_heads_are_asked_for_when_there_is_news_and_saved_before_they_are_used() -> None:
    log = FakeLog(entries=4)
    made = net(honest(log), log=log)
    made.tick(60.0)
    assert size(made) == 4
    asked = sum(b"head" in data for _, data in made.sent)
    made.tick(600.0)
    assert sum(b"head" in data for _, data in made.sent) == asked  # no news, no questions
    log.grow(5)
    made.tick(120.0)
    assert size(made) == 9
    assert [save.note for save in made.saved] == [log.note(4), log.note(9)]


def test_a_wrong_signature_is_refused_and_the_peer_is_not_trusted_for_a_while() -> None:
    log, forged = FakeLog(entries=4), FakeLog(seed=9, entries=4)
    liar, good = honest(forged), honest(log)
    made = net(liar, good, log=log)
    made.tick(61.0)
    assert made.states() == ["distrusted", "up"]
    assert refusals(made) == ["wrong-head"]
    assert size(made) == 4
    made.tick(500.0)
    assert made.states()[0] == "distrusted"
    made.tick(120.0)
    assert refusals(made) == ["wrong-head"] * 2  # tried again, and it lied again
    made.tick(1100.0)
    assert made.states()[0] == "distrusted"  # twice as long


def test_a_rollback_is_refused_kept_and_announced_and_others_go_on() -> None:
    log = FakeLog(entries=9)
    one, other = honest(log), honest(None)
    other.full.verifiers[log.verifier.name] = log.verifier
    made = net(one, other, log=log)
    made.tick(61.0)
    one.machine.log = log.fork(5)
    made.tick(121.0)
    assert size(made) == 9
    assert "rollback" in refusals(made)
    assert made.states() == ["up", "up"]  # the log's doing, not the peer's
    assert [keep.evidence.kind for keep in made.kept] == ["rollback"]
    assert [each.kind for each in other.full.evidence.all()] == ["rollback"]


def test_a_fork_is_refused_kept_announced_and_reaches_who_is_on_another_full_node() -> None:
    log = FakeLog(entries=6)
    other = log.fork(3).grow(3, b"other")
    one, two = honest(log), honest(other)
    made = net(one, two, log=log)
    second = net(two, log=log)  # has the other history, and only that
    for each in (made, second):
        each.tick(61.0)
    assert made.light.beliefs.logs["log.example"].forked
    assert "fork" in refusals(made)
    assert [each.kind for each in one.full.evidence.all()] == ["fork"]
    second.tick(121.0)
    assert second.light.beliefs.logs["log.example"].forked
    log.grow(3)
    made.tick(180.0)
    assert size(made) == 6
    assert "forked" in refusals(made)
    with pytest.raises(inquiries.UnfitError, match="two histories"):
        includes(made, b"entry 0")


def test_a_stale_proof_is_refused() -> None:
    log = FakeLog(entries=5)
    side = honest(log)
    made = net(side, log=log)
    made.tick(61.0)
    log.grow(5)
    old = log.answer("consistency", {"from": 4, "to": 7})
    assert isinstance(old, dict)
    side.meddle = lambda frame: changed(frame, note=log.note(), proof=old["proof"])
    made.tick(121.0)
    assert refusals(made) == ["stale-proof"]
    assert made.states() == ["distrusted"]
    assert size(made) == 5
    assert [keep.evidence.kind for keep in made.kept] == ["inconsistent"]


def test_two_peers_that_show_the_same_new_head_at_once_are_both_believed() -> None:
    log = FakeLog(entries=5)
    sides = [honest(log), honest(log)]
    made = net(*sides, log=log)
    made.tick(61.0)
    log.grow(7)
    held: list[tuple[FullSide, bytes]] = []
    for side in sides:

        def hold(frame: bytes, side: FullSide = side) -> bytes | None:
            if b"note" not in frame:
                return frame
            held.append((side, frame))
            return None

        side.meddle = hold
    made.tick(121.0)
    for side in sides:
        side.meddle = lambda frame: frame
    for side, frame in held[:2]:  # both answers are from 5: the second comes when 12 is held
        made.run(events.Heard(sides.index(side), frame))
    assert size(made) == 12
    assert refusals(made) == []


def test_a_replayed_answer_is_refused() -> None:
    side = honest()
    made = net(side)
    made.run(events.Heard(0, answer(1, {"news": 1000, "node": "f", "release": "0.1.0"})))
    assert refusals(made) == ["replay"]
    assert made.states() == ["distrusted"]


def test_an_answer_that_comes_too_late_is_no_lie() -> None:
    side = honest(FakeLog(), BLOB)
    made = net(side)
    late: list[bytes] = []
    side.meddle = lambda frame: late.append(frame)
    made.run(events.Asked(made.light.transfers.fetch("t", "c", hashlib.sha256(BLOB).digest(), 0, 10, made.now)))
    side.meddle = lambda frame: frame
    made.tick(6.0)
    assert isinstance(made.done["t"], events.Failed)
    made.run(events.Heard(0, late[0]))
    assert made.states() == ["up"]
    assert refusals(made) == []


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\x80", answer(0, {}), answer(9, {}), refusal(0, "malformed", "")])
def test_garbage_ends_the_trust(garbage: bytes) -> None:
    made = net(honest())
    made.run(events.Heard(0, garbage))
    assert made.states() == ["distrusted"]
    assert not made.open


def test_what_comes_without_a_connection_is_refused_and_changes_nothing() -> None:
    side = honest()
    side.alive = False
    made = net(side)
    made.tick(10.5)
    made.run(events.Heard(0, answer(1, {"news": 1})))
    assert refusals(made) == ["replay"]
    assert made.states() == ["down"]


def test_an_echo_of_version_1_is_refused() -> None:
    from edge_agent.peers.wire import Echo, pack_beat

    side = honest()
    side.meddle = lambda _frame: pack_beat(Echo("f", "0.0.9", 1))
    made = net(side)
    assert made.states() == ["distrusted"]
    assert refusals(made) == ["malformed"]


def test_a_peer_that_wants_the_status_for_ever_does_not_make_it_spin() -> None:
    side = honest()
    side.meddle = lambda frame: msgpack.packb(msgpack.unpackb(frame) | {"again": True})
    made = net(side)
    made.tick(100.0)
    assert made.states() == ["distrusted"]
    assert len(made.sent) < 10


# -- entries


def test_entries_and_where_they_are_are_proved() -> None:
    log = FakeLog(entries=20)
    made = net(honest(log), log=log)
    made.tick(61.0)
    found = includes(made, b"entry 7")
    assert isinstance(found, events.Done)
    assert found.result == {"index": 7, "size": 20}
    asked = made.ask(inquiries.entries("e", made.light.beliefs.logs["log.example"], 15, 100))
    assert isinstance(asked, events.Done)
    assert asked.result == {"entries": log.entries[15:], "size": 20}
    missing = includes(made, b"never", "m")
    assert isinstance(missing, events.Failed)
    assert missing.code == "not-found"


@pytest.mark.parametrize("what", ["entry", "proof", "order"])
def test_wrong_entries_are_refused_and_another_peer_is_asked(what: str) -> None:
    log = FakeLog(entries=20)
    liar, good = honest(log), honest(log)

    def lie(frame: bytes) -> bytes:
        message = msgpack.unpackb(frame)
        if "entries" in message:
            if what == "entry":
                message["entries"][1] += b"!"
            elif what == "proof":
                message["proofs"][0][0] = bytes(32)
            else:
                message["entries"].reverse()
        packed: bytes = msgpack.packb(message)
        return packed

    liar.meddle = lie
    made = net(liar, good, log=log)
    made.tick(61.0)
    asked = made.ask(inquiries.entries("e", made.light.beliefs.logs["log.example"], 3, 4))
    assert isinstance(asked, events.Done)
    assert asked.result["entries"] == log.entries[3:7]
    assert (asked.peer, made.states()[0]) == (1, "distrusted")
    assert refusals(made) == ["wrong-entry"]


def test_a_submitted_entry_is_appended_once_even_when_the_answer_is_lost() -> None:
    log = FakeLog(entries=2)
    sides = [honest(log), honest(log)]
    made = net(*sides, log=log)
    made.tick(61.0)
    for side in sides:
        side.meddle = lambda _frame: None
    made.run(events.Asked(inquiries.submit("s", made.light.beliefs.logs["log.example"], b"mine")))
    made.tick(6.0)
    failed = made.done["s"]
    assert isinstance(failed, events.Failed)
    assert failed.code == "unknown-outcome"
    assert log.entries.count(b"mine") == 1


def test_a_submitted_entry_is_found_under_the_next_head() -> None:
    log = FakeLog(entries=2)
    made = net(honest(log), log=log)
    made.tick(61.0)
    got = made.ask(inquiries.submit("s", made.light.beliefs.logs["log.example"], b"mine"))
    assert isinstance(got, events.Done)
    assert got.result == {"index": 2, "size": 3}
    made.tick(121.0)
    assert isinstance(includes(made, b"mine"), events.Done)


# -- blobs


def test_a_blob_comes_by_pieces_and_is_checked() -> None:
    made = net(honest(None, BLOB))
    assert fetch(made, BLOB, 1000) == BLOB
    assert fetch(made, BLOB, 256 * 1024) == BLOB
    assert fetch(made, b"never seen") == "not-found"
    assert len(made.light.transfers) == 1  # the one that was begun and not found


def test_an_empty_blob_is_a_blob() -> None:
    assert fetch(net(honest(None, b"")), b"") == b""


@pytest.mark.parametrize("piece", [1000, 256 * 1024])
def test_a_wrong_blob_is_refused_at_its_last_piece_and_the_next_peer_gives_the_right_one(piece: int) -> None:
    liar, good = honest(None, BLOB), honest(None, BLOB)
    liar.meddle = lambda frame: frame.replace(BLOB[:100], bytes(100))
    made = net(liar, good)
    assert fetch(made, BLOB, piece) == "wrong-blob"
    assert made.states() == ["distrusted", "up"]
    assert fetch(made, BLOB, piece) == BLOB


@pytest.mark.parametrize("change", [{"size": 7}, {"data": b""}, {"size": 1 << 50}, {"data": b"x" * 5000}])
def test_a_blob_that_changes_its_size_or_comes_short_is_refused(change: dict[str, object]) -> None:
    liar, good = honest(None, BLOB), honest(None, BLOB)
    made = net(liar, good)
    seen: list[bytes] = []

    def lie(frame: bytes) -> bytes:
        if b"data" in frame:
            seen.append(frame)
        return changed(frame, **change) if len(seen) == 3 else frame

    liar.meddle = lie
    assert fetch(made, BLOB, 1000) == BLOB  # the rest comes from the other, and the whole is right
    assert made.states()[0] == "distrusted"


def test_when_several_have_sent_parts_of_a_wrong_blob_none_is_blamed_and_one_sends_it_all_again() -> None:
    liar, good = honest(None, BLOB), honest(None, BLOB)
    made = net(liar, good)
    liar.meddle = lambda frame: frame.replace(BLOB[:100], bytes(100))
    sent: list[bytes] = []

    def vanish(frame: bytes) -> bytes | None:
        sent.append(frame)
        return frame.replace(BLOB[:100], bytes(100)) if len(sent) == 1 else None

    liar.meddle = vanish
    assert fetch(made, BLOB, 5000) == "wrong-blob"
    assert "distrusted" not in made.states()
    liar.meddle = lambda frame: frame.replace(BLOB[:100], bytes(100))
    first = fetch(made, BLOB, 5000)
    assert first == "wrong-blob" or first == BLOB
    assert fetch(made, BLOB, 5000) == BLOB


def test_pieces_have_to_be_asked_for_in_order() -> None:
    made = net(honest(None, BLOB))
    with pytest.raises(inquiries.UnfitError, match="in order"):
        made.light.transfers.fetch("t", "c", hashlib.sha256(BLOB).digest(), 100, 10, 0.0)


def test_transfers_are_bounded() -> None:
    transfers = inquiries.Transfers()
    for number in range(200):
        transfers.fetch("t", "c", bytes([number]) * 32, 0, 10, float(number))
    assert len(transfers) == inquiries.TRANSFERS


def test_a_slow_peer_is_passed_over_and_another_answers() -> None:
    slow, good = honest(None, BLOB), honest(None, BLOB)
    made = net(slow, good)
    slow.meddle = lambda _frame: None
    assert fetch(made, BLOB) == BLOB
    assert made.states()[1] == "up"


def test_the_best_peer_is_asked_first() -> None:
    sides = [honest(None, BLOB), honest(None, BLOB)]
    made = net(*sides)
    made.light._sessions[0].rtt = 0.9
    made.light._sessions[1].rtt = 0.1
    for side in sides:
        side.received.clear()
    assert fetch(made, BLOB) == BLOB
    assert not any(b"blob" in data for data in sides[0].received)


def test_a_peer_that_cannot_help_is_followed_by_one_that_is_not_connected_yet() -> None:
    sides = [honest() for _ in range(4)] + [honest(None, BLOB)]
    made = net(*sides)
    assert made.states()[4] == "down"
    assert fetch(made, BLOB) == BLOB
    made.tick(240.0)
    assert made.states().count("up") == links.CONNECTIONS  # and back to three


def test_questions_are_bounded() -> None:
    side = honest(None, BLOB)
    made = net(side)
    side.meddle = lambda _frame: None
    for number in range(500):
        made.run(events.Asked(made.light.transfers.fetch(number, f"c{number}", bytes(32), 0, 10, made.now)))
    assert made.light._sessions[0].load <= session.MOST_PENDING
    made.tick(60.0)
    assert set(made.done) == set(range(500))  # each has been answered, once
