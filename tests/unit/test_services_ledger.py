"""The ledger without sockets: requests in, answers out, a log underneath."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from edge_agent import tlog
from edge_agent.notes import COSIGNATURE, Checkpoint, Note, Signer, Verifier, open_checkpoint, parse
from edge_agent.peers.wire import pack
from edge_agent.services import ledger, requests, tilestore
from edge_agent.services.errors import StartError
from edge_agent.services.leaves import Leaves
from edge_agent.services.ledger import MOST_ENTRIES, MOST_WAITING, Ledger
from edge_agent.services.options import LogOptions, Options
from edge_agent.services.tiles import MAX_ENTRY
from edge_agent.services.tilestore import NoRoomError

WITNESSES = [Signer(f"witness-{number}", bytes((number,)) * 32, COSIGNATURE) for number in (1, 2)]


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda _descriptor: None)


class Bench:
    """A ledger; its clock is ``time``. ``ask`` answers as a client would see it."""

    def __init__(self, directory: Path, *, cluster: str = "here", node: str | None = "n1", **told: Any) -> None:
        self.time = 1000.0
        log = LogOptions(**{"record": False, **told})
        options = Options("ledger", str(directory), str(directory), node_id=node, cluster_name=cluster, log=log)
        self.ledger = Ledger(options)
        self.directory = directory
        self.ledger.open(self)  # type: ignore[arg-type]  # only its clock is used
        self.verifier = Verifier.parse(self.ask("key")["vkey"])

    def now(self) -> float:
        return self.time

    def start(self, op: str, **arguments: Any) -> list[bytes]:
        """Send a request; where its answer will be."""
        answers: list[bytes] = []
        data = pack({"v": 1, "id": 1, "op": op, **arguments})
        request = requests.parse(data, self.ledger.request_limit, "uid:0", answers.append)
        assert request is not None
        requests.perform(request, self.ledger.operations())
        return answers

    def work(self) -> None:
        while self.ledger.busy():
            self.ledger.work()

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        answers = self.start(op, **arguments)
        self.work()
        (answer,) = answers
        unpacked: dict[str, Any] = msgpack.unpackb(answer)
        return unpacked

    def code(self, op: str, **arguments: Any) -> str:
        answer = self.ask(op, **arguments)
        assert answer["ok"] is False
        code: str = answer["error"]["code"]
        return code

    def head(self, **arguments: Any) -> Checkpoint:
        return open_checkpoint(self.ask("head", **arguments)["checkpoint"], [self.verifier], origin="here/n1/ledger")

    def later(self, seconds: float) -> None:
        self.time += seconds
        self.ledger.tick(self.time)


@pytest.fixture
def log(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def numbered(start: int, count: int) -> list[bytes]:
    return [b"entry %d" % number for number in range(start, start + count)]


def test_what_is_appended_is_proved(log: Bench) -> None:
    assert log.head() == Checkpoint("here/n1/ledger", 0, tlog.EMPTY_ROOT)
    assert log.ask("append", entries=numbered(0, 3))["first"] == 0
    answer = log.ask("append", entries=numbered(3, 600))
    assert (answer["first"], answer["size"]) == (3, 603)
    head = log.head()
    assert head.size == 603
    assert head.root == tlog.root([tlog.leaf_hash(entry) for entry in numbered(0, 603)])
    for index in (0, 1, 255, 256, 511, 602):
        by_index = log.ask("inclusion", index=index, size=603)
        assert by_index["hash"] == tlog.leaf_hash(b"entry %d" % index)
        tlog.verify_inclusion(by_index["hash"], index, 603, by_index["proof"], head.root)
        by_hash = log.ask("inclusion", hash=by_index["hash"], size=603)
        assert (by_hash["index"], by_hash["proof"]) == (index, by_index["proof"])
    proof = log.ask("consistency", **{"from": 3, "to": 603})["proof"]
    tlog.verify_consistency(3, 603, proof, tlog.root([tlog.leaf_hash(each) for each in numbered(0, 3)]), head.root)
    assert log.ask("consistency", **{"from": 0})["proof"] == []
    assert log.ask("entries", start=250, most=10)["entries"] == numbered(250, 10)
    assert log.ask("entries", start=603)["entries"] == []


def test_earlier_sizes_are_proved_as_well(log: Bench) -> None:
    log.ask("append", entries=numbered(0, 300))
    root = tlog.root([tlog.leaf_hash(each) for each in numbered(0, 257)])
    answer = log.ask("inclusion", index=256, size=257)
    tlog.verify_inclusion(answer["hash"], 256, 257, answer["proof"], root)
    assert log.code("inclusion", hash=tlog.leaf_hash(b"entry 257"), size=257) == "not-found"
    assert log.ask("inclusion", hash=tlog.leaf_hash(b"entry 257"))["index"] == 257


def test_appends_that_come_together_are_one_record(log: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    answers = [log.start("append", entries=[b"entry %d" % number]) for number in range(50)]
    assert not any(answers), "not acknowledged before it is durable"
    log.ledger.work()
    answers += [log.start("append", entries=[b"one that was in the socket"])]
    log.work()
    assert len(synced) == 1
    told = [msgpack.unpackb(answer) for (answer,) in answers]
    assert [each["first"] for each in told] == list(range(51))
    assert {each["size"] for each in told} == {51}


def test_the_log_is_the_same_after_a_restart(log: Bench, tmp_path: Path) -> None:
    log.ask("append", entries=numbered(0, 300))
    before = log.ask("head")["checkpoint"]
    log.ledger.close()
    again = Bench(tmp_path)
    assert again.ask("head")["checkpoint"] == before
    assert again.ask("inclusion", hash=tlog.leaf_hash(b"entry 299"))["index"] == 299
    assert (tmp_path / "log/checkpoint").read_bytes() == before


def test_files_follow_and_not_at_once(log: Bench) -> None:
    log.ask("append", entries=numbered(0, 3))
    assert parse((log.directory / "log/checkpoint").read_bytes()).text.split("\n")[1] == "0"
    due = log.ledger.deadline()
    assert due is not None
    assert due == log.time + ledger.PAUSE
    log.later(ledger.PAUSE)
    assert (log.directory / "log/checkpoint").read_bytes() == log.ask("head")["checkpoint"]
    assert log.ledger.deadline() is None, "at rest nothing is due"


@pytest.mark.parametrize(
    ("op", "arguments", "code"),
    [
        ("append", {}, "bad-request"),
        ("append", {"entries": []}, "bad-request"),
        ("append", {"entries": b"x"}, "bad-request"),
        ("append", {"entries": ["text"]}, "bad-request"),
        ("append", {"entries": [bytes(MAX_ENTRY + 1)]}, "bad-request"),
        ("append", {"entries": [b""] * (MOST_ENTRIES + 1)}, "bad-request"),
        ("inclusion", {}, "bad-request"),
        ("inclusion", {"index": -1}, "bad-request"),
        ("inclusion", {"index": True}, "bad-request"),
        ("inclusion", {"index": 5}, "not-found"),
        ("inclusion", {"index": 4, "size": 4}, "not-found"),
        ("inclusion", {"index": 0, "size": 6}, "not-found"),
        ("inclusion", {"index": 0, "size": 2**63}, "bad-request"),
        ("inclusion", {"hash": bytes(31)}, "bad-request"),
        ("inclusion", {"hash": bytes(32)}, "not-found"),
        ("consistency", {}, "bad-request"),
        ("consistency", {"from": 4, "to": 3}, "bad-request"),
        ("consistency", {"from": 4, "to": 6}, "not-found"),
        ("entries", {"start": -1}, "bad-request"),
        ("entries", {"start": 0, "most": 0}, "bad-request"),
        ("head", {"witnessed": True}, "not-found"),
        ("cosign", {"checkpoint": b"x"}, "bad-request"),
    ],
)
def test_bad_requests_are_refused(log: Bench, op: str, arguments: dict[str, Any], code: str) -> None:
    log.ask("append", entries=numbered(0, 5))
    assert log.code(op, **arguments) == code
    assert log.head().size == 5


def test_the_longest_answer_is_bounded(log: Bench) -> None:
    for _ in range(2):
        log.ask("append", entries=[bytes(MAX_ENTRY)] * 10)
    assert len(log.ask("entries", start=0)["entries"]) == 4


def test_more_than_the_disk_takes_is_refused(log: Bench) -> None:
    answers = [
        log.start("append", entries=[bytes(MAX_ENTRY)] * 16) for _ in range(MOST_WAITING // (16 * MAX_ENTRY) + 2)
    ]
    refused = [msgpack.unpackb(answer[0]) for answer in answers if answer]
    assert [each["error"]["code"] for each in refused] == ["busy"]
    log.work()
    assert all(answers)


def test_without_room_nothing_is_taken(log: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "KEEP_FREE", 2**62)
    assert log.code("append", entries=[b"x"]) == "no-space"
    monkeypatch.undo()

    def full(_batch: object) -> int:
        raise NoRoomError(28, "No space left on device")

    monkeypatch.setattr(log.ledger._store, "append", full)
    assert log.code("append", entries=[b"x"]) == "no-space"
    monkeypatch.undo()
    assert log.ask("append", entries=[b"x"])["first"] == 0


def test_files_that_find_no_room_are_written_later(log: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    log.ask("append", entries=[b"x"])

    def full(_head: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log.ledger._store, "publish", full)
    log.later(ledger.PAUSE)
    monkeypatch.undo()
    assert log.ask("append", entries=[b"y"])["first"] == 1
    log.later(ledger.RETRY)
    assert (log.directory / "log/checkpoint").read_bytes() == log.ask("head")["checkpoint"]


def test_a_long_journal_is_flushed(log: Bench) -> None:
    for start in range(0, tilestore.FLUSH_ENTRIES, MOST_ENTRIES):
        log.ask("append", entries=numbered(start, MOST_ENTRIES))
    assert (log.directory / "journal").stat().st_size > 10_000
    log.later(ledger.PAUSE)
    assert (log.directory / "journal").stat().st_size < 100


# -- its name and key


def test_the_name_is_kept_from_the_first_start_on(log: Bench, tmp_path: Path) -> None:
    assert log.verifier.name == "here/n1/ledger"
    log.ledger.close()
    assert Bench(tmp_path, cluster="moved", node=None).verifier == log.verifier
    with pytest.raises(StartError, match="others know it by that name"):
        Bench(tmp_path, origin="example.com/other")


def test_a_name_may_be_given(tmp_path: Path) -> None:
    assert Bench(tmp_path, origin="example.com/log").verifier.name == "example.com/log"


def test_without_names_the_key_names_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cluster="a +b", node=None)
    assert bench.verifier.name == f"a--b/{bench.verifier.key[:8].hex()}/ledger"


@pytest.mark.parametrize("file", ["ledger.key", "origin", "journal"])
def test_a_log_without_its_key_its_name_or_its_journal_does_not_start(log: Bench, tmp_path: Path, file: str) -> None:
    log.ask("append", entries=[b"x"])
    log.ledger.close()
    (tmp_path / file).unlink()
    with pytest.raises(StartError, match="restore it from a backup"):
        Bench(tmp_path)


# -- the index of hashes


@pytest.mark.parametrize("harm", ["gone", "torn", "another", "longer"])
def test_the_index_is_made_again(log: Bench, tmp_path: Path, harm: str) -> None:
    log.ask("append", entries=numbered(0, 700))
    log.ledger.close()
    file = tmp_path / "leaves.sqlite"
    if harm == "torn":
        file.write_bytes(b"SQLite format 3\0" + bytes(50))
    elif harm != "longer":
        file.unlink()
    if harm in ("another", "longer"):
        leaves = Leaves(str(file))
        leaves.add([tlog.leaf_hash(b"other %d" % number) for number in range(300)])
        leaves.close()
    again = Bench(tmp_path)
    again.work()
    for number in (0, 299, 699):
        assert again.ask("inclusion", hash=tlog.leaf_hash(b"entry %d" % number))["index"] == number
    assert again.code("inclusion", hash=tlog.leaf_hash(b"other 3")) == "not-found"


def test_of_the_same_entry_the_first_is_told(log: Bench) -> None:
    log.ask("append", entries=[b"a", b"b", b"b", b"a"])
    assert log.ask("inclusion", hash=tlog.leaf_hash(b"b"))["index"] == 1


def test_an_index_that_cannot_be_written_stops_nothing(log: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_hashes: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log.ledger._leaves, "add", full)
    assert log.ask("append", entries=numbered(0, 3))["first"] == 0
    assert not log.ledger.busy(), "no spinning"
    assert log.code("inclusion", hash=bytes(32)) == "busy"
    monkeypatch.undo()
    log.time += ledger.RETRY
    log.work()
    assert log.ask("inclusion", hash=tlog.leaf_hash(b"entry 2"))["index"] == 2


# -- witnesses


def cosigned(bench: Bench, *who: Signer, time: int = 1_700_000_000) -> bytes:
    note = parse(bench.ask("head")["checkpoint"])
    return Note(note.text, (*note.signatures, *(each.cosign(note, time) for each in who))).encode()


def test_cosignatures_are_kept_and_a_quorum_makes_a_witnessed_head(tmp_path: Path) -> None:
    verifiers = tuple(each.verifier for each in WITNESSES)
    log = Bench(tmp_path, witnesses=verifiers, quorum=2)
    log.ask("append", entries=numbered(0, 3))
    assert log.ask("cosign", checkpoint=cosigned(log, WITNESSES[0]))["count"] == 1
    assert log.code("head", witnessed=True) == "not-found"
    assert log.ask("cosign", checkpoint=cosigned(log, WITNESSES[1]))["count"] == 2
    present = log.ask("head")["checkpoint"]
    assert open_checkpoint(present, [log.verifier], verifiers, 2).size == 3
    log.ask("append", entries=numbered(3, 1))
    assert log.head().size == 4
    assert log.ask("head", witnessed=True)["checkpoint"] == present
    late = log.ask("cosign", checkpoint=present)
    assert late["count"] == 2, "of an earlier head"
    log.ledger.close()
    again = Bench(tmp_path, witnesses=verifiers, quorum=2)
    assert again.ask("head", witnessed=True)["checkpoint"] == present
    again.ledger.close()
    assert Bench(tmp_path).code("head", witnessed=True) == "not-found", "nobody is asked to witness any more"


def test_a_later_cosignature_takes_the_place_of_the_earlier(tmp_path: Path) -> None:
    witness = WITNESSES[0]
    log = Bench(tmp_path, witnesses=(witness.verifier,), quorum=1)
    for time in (1000, 3000, 2000):
        assert log.ask("cosign", checkpoint=cosigned(log, witness, time=time))["count"] == 1
    note = parse(log.ask("head")["checkpoint"])
    assert len(note.signatures) == 2
    assert witness.verifier.time(note) == 3000


def test_cosignatures_of_strangers_and_of_other_heads_are_refused(tmp_path: Path) -> None:
    log = Bench(tmp_path, witnesses=(WITNESSES[0].verifier,), quorum=1)
    assert log.code("cosign", checkpoint=cosigned(log, WITNESSES[1])) == "bad-request"
    assert log.code("cosign", checkpoint=log.ask("head")["checkpoint"]) == "bad-request"
    forked = log.ledger._signer.sign(Checkpoint("here/n1/ledger", 0, bytes(32)).text())
    note = parse(forked)
    data = Note(note.text, (*note.signatures, WITNESSES[0].cosign(note, 1))).encode()
    assert log.code("cosign", checkpoint=data) == "bad-request"
    bad = cosigned(log, WITNESSES[0]).replace(b"witness-1 ", b"witness-9 ")
    assert log.code("cosign", checkpoint=bad) == "bad-request"


def test_metrics_and_health_tell_the_size(log: Bench) -> None:
    log.ask("append", entries=numbered(0, 3))
    assert log.ledger.details() == {"origin": "here/n1/ledger", "size": 3, "batches": 1}
    assert {each.name: each.samples[0][1] for each in log.ledger.metrics()} == {
        "ledger_entries": 3,
        "ledger_indexed_entries": 3,
        "ledger_batches_total": 1,
        "ledger_flushes_total": 0,
    }


def test_a_damaged_tile_is_said_and_not_told(log: Bench) -> None:
    log.ask("append", entries=numbered(0, 300))
    (log.directory / "log/tile/0/000").write_bytes(b"short")
    log.ledger._store._cache.clear()
    calls: list[Callable[[], str]] = [
        lambda: log.code("inclusion", index=3),
        lambda: log.code("consistency", **{"from": 3}),
        lambda: log.code("entries", start=3),
    ]
    assert [call() for call in calls] == ["corrupt"] * 3
