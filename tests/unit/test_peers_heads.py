"""What a light node believes of a log: each lie about a head, by name."""

from __future__ import annotations

import pytest

from edge_agent.notes import Checkpoint, NoteError, Signature
from edge_agent.notes import parse as parse_note
from edge_agent.peers import evidence
from edge_agent.peers.heads import HeadError, Log
from edge_agent.peers.wire import WireError
from tests.fakes.logs import FakeLog


def held(log: FakeLog, size: int) -> Log:
    mine = Log(log.verifier)
    assert mine.offer(log.note(size), None, "tcp://a:1", 1.0)
    return mine


def proof(log: FakeLog, begin: int, end: int) -> list[bytes]:
    answer = log.answer("consistency", {"from": begin, "to": end})
    assert isinstance(answer, dict)
    found: list[bytes] = answer["proof"]
    return found


def refused(mine: Log, note: bytes, given: list[bytes] | None = None) -> HeadError:
    before = (mine.head, mine.note)
    with pytest.raises(HeadError) as caught:
        mine.offer(note, given, "tcp://b:1", 2.0)
    assert (mine.head, mine.note) == before  # whatever it was, what is held stays
    return caught.value


def test_the_first_signed_head_is_believed_and_kept() -> None:
    log = FakeLog(entries=5)
    mine = held(log, 5)
    assert (mine.size, mine.note) == (5, log.note(5))
    assert mine.view().source == "tcp://a:1"


def test_a_larger_head_needs_a_proof_that_holds() -> None:
    log = FakeLog(entries=9)
    mine = held(log, 5)
    assert mine.offer(log.note(9), proof(log, 5, 9), "tcp://a:1", 2.0)
    assert mine.size == 9
    assert not mine.offer(log.note(9), None, "tcp://a:1", 3.0)  # the same again: no news


def test_from_an_empty_log_no_proof_is_needed() -> None:
    log = FakeLog(entries=4)
    assert held(log, 0).offer(log.note(4), None, "tcp://a:1", 2.0)


def test_an_unsigned_head_is_a_lie() -> None:
    log = FakeLog(entries=3)
    text = Checkpoint(log.verifier.name, 3, bytes(32)).text()
    error = refused(held(log, 3), text.encode())
    assert (error.code, error.lie, error.evidence) == ("wrong-head", True, None)


def test_a_head_signed_by_an_unknown_key_is_a_lie() -> None:
    log, other = FakeLog(entries=3), FakeLog(seed=9, entries=3)
    assert refused(held(log, 3), other.note()).code == "wrong-head"


def test_a_head_of_another_log_by_the_same_key_is_a_lie() -> None:
    log = FakeLog(entries=3)
    note = log.signer.sign(Checkpoint("other.example", 9, bytes(32)).text())
    assert refused(held(log, 3), note).code == "wrong-head"


def test_a_changed_byte_of_a_head_is_a_lie() -> None:
    log = FakeLog(entries=3)
    note = log.note()
    for place in range(0, len(note), 7):
        changed = note[:place] + bytes([note[place] ^ 1]) + note[place + 1 :]
        assert refused(held(log, 3), changed).lie


def test_a_smaller_head_is_a_rollback_with_evidence_and_not_the_peers_lie() -> None:
    log = FakeLog(entries=9)
    error = refused(held(log, 9), log.note(5))
    assert (error.code, error.lie) == ("rollback", False)
    assert error.evidence == evidence.Evidence("log.example", "rollback", log.note(9), log.note(5))


def test_the_same_size_with_another_root_is_a_fork_and_ends_all_belief() -> None:
    log = FakeLog(entries=9)
    mine, other = held(log, 6), log.fork(3).grow(3, b"other")
    error = refused(mine, other.note())
    assert (error.code, error.lie) == ("fork", False)
    assert error.evidence is not None
    assert error.evidence.kind == "fork"
    assert mine.forked
    assert refused(mine, log.note(9), proof(log, 6, 9)).code == "forked"  # an honest one as well


@pytest.mark.parametrize("given", [None, [], [bytes(32)], [bytes(32)] * 4])
def test_a_larger_head_without_its_proof_is_a_stale_proof(given: list[bytes] | None) -> None:
    log = FakeLog(entries=9)
    error = refused(held(log, 5), log.note(9), given)
    assert (error.code, error.lie) == ("stale-proof", True)
    assert error.evidence is not None
    assert error.evidence.kind == "inconsistent"


def test_a_proof_for_other_sizes_does_not_hold() -> None:
    log = FakeLog(entries=12)
    assert refused(held(log, 5), log.note(12), proof(log, 5, 9)).code == "stale-proof"
    assert refused(held(log, 5), log.note(12), proof(log, 6, 12)).code == "stale-proof"


def test_a_larger_fork_with_its_own_proof_does_not_hold() -> None:
    log = FakeLog(entries=6)
    other = log.fork(3).grow(9, b"other")
    assert refused(held(log, 6), other.note(), proof(other, 6, 12)).code == "stale-proof"


def test_what_is_kept_is_at_most_a_kilobyte_and_without_foreign_signatures() -> None:
    log = FakeLog(entries=3)
    note = parse_note(log.note())
    foreign = Signature("x" * 200, 7, bytes(64))
    signed_by_many = note._replace(signatures=(*note.signatures, *[foreign] * 3)).encode()
    mine = Log(log.verifier)
    mine.offer(signed_by_many, None, "", 0.0)
    assert mine.note == log.note()
    long = log.signer.sign(Checkpoint(log.verifier.name, 4, bytes(32), ("x" * 900,)).text())
    assert refused(mine, long).code == "wrong-head"


def test_what_comes_from_the_disk_is_verified_like_everything_else() -> None:
    log = FakeLog(entries=3)
    mine = Log(log.verifier)
    mine.restore(log.note())
    assert (mine.size, mine.view().source) == (3, "disk")
    with pytest.raises(NoteError):
        Log(log.verifier).restore(FakeLog(seed=2, entries=3).note())


# -- evidence


def fork_of(log: FakeLog, size: int) -> evidence.Evidence:
    other = log.fork(size - 1).grow(1, b"other")
    return evidence.Evidence(log.verifier.name, "fork", log.note(size), other.note(size))


def test_a_fork_shown_by_others_is_proof() -> None:
    log = FakeLog(entries=4)
    mine = held(log, 2)
    found = evidence.parse(fork_of(log, 4).message(), {log.verifier.name: log.verifier})
    assert found is not None
    assert mine.accuse(found) == [found]
    assert mine.forked
    assert mine.accuse(found) == []  # told once


def test_an_honest_pair_of_heads_called_a_fork_proves_nothing() -> None:
    log = FakeLog(entries=4)
    claim = evidence.Evidence(log.verifier.name, "fork", log.note(4), log.note(3))
    found = evidence.parse(claim.message(), {log.verifier.name: log.verifier})
    assert found is not None
    assert found.kind == "rollback"  # what it is, not what it is called
    mine = held(log, 4)
    assert mine.accuse(found) == []
    assert not mine.forked


def test_a_head_in_a_report_that_contradicts_ours_is_a_fork() -> None:
    log = FakeLog(entries=6)
    other = log.fork(2).grow(4, b"other")
    claim = evidence.Evidence(log.verifier.name, "rollback", other.note(6), other.note(4))
    found = evidence.parse(claim.message(), {log.verifier.name: log.verifier})
    assert found is not None
    mine = held(log, 4)
    assert [each.kind for each in mine.accuse(found)] == ["fork"]


@pytest.mark.parametrize(
    "change",
    [
        {"held": b"x"},
        {"shown": FakeLog(seed=5, entries=9).note()},
        {"origin": ""},
        {"kind": 3},
        {"shown": FakeLog(entries=4).note()},  # the same head twice
    ],
)
def test_evidence_without_two_signatures_is_none(change: dict[str, object]) -> None:
    log = FakeLog(entries=4)
    message = {"origin": log.verifier.name, "kind": "fork", "held": log.note(), "shown": log.note(2)} | change
    with pytest.raises(WireError):
        evidence.parse(message, {log.verifier.name: log.verifier})


def test_evidence_against_a_log_without_a_key_here_is_not_judged() -> None:
    assert evidence.parse(fork_of(FakeLog(entries=4), 4).message(), {}) is None


def test_evidence_is_bounded_and_a_fork_pushes_out_a_report() -> None:
    store = evidence.Store()
    for number in range(40):
        log = FakeLog(f"log{number}", entries=3)
        store.add(evidence.Evidence(f"log{number}", "rollback", log.note(3), log.note(2)))
    assert len(store) == evidence.MOST
    log = FakeLog("late", entries=4)
    new, gone = store.add(fork_of(log, 4))
    assert (new, gone[:8]) == (True, "rollback")
    assert store.all()[0].kind == "fork"
    assert store.add(fork_of(log, 4)) == (False, "")
    assert len(store) == evidence.MOST


def test_evidence_comes_back_from_the_disk() -> None:
    log = FakeLog(entries=4)
    found = fork_of(log, 4)
    assert len(found.pack()) <= evidence.MAX_BYTES
    assert evidence.load(found.pack(), {log.verifier.name: log.verifier}) == found
