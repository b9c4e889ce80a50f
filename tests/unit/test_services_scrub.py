"""A scrub finds what is damaged, brings it back where it can, and leaves the device to others."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

from edge_agent.services import scrub
from edge_agent.services.blobs import Blobs, Writer
from edge_agent.services.fetches import REST
from edge_agent.services.scrub import DELAY, SLICE, Scrub, pause
from tests.fakes.blobnode import FakeNode
from tests.unit.test_services_storage import Bench

WEEK = 7 * 86_400.0


class Watch:
    """Both clocks; each look at the monotonic one takes ``look`` seconds."""

    def __init__(self, look: float = 0.0) -> None:
        self.time, self.wall_time, self.look = 1000.0, 1e9, look

    def clock(self) -> float:
        self.time += self.look
        return self.time

    def wall(self) -> float:
        return self.wall_time


class Rig:
    def __init__(self, directory: Path, watch: Watch, interval: float = WEEK, rate: int = 1 << 20) -> None:
        self.blobs, self.watch = Blobs(str(directory), durable=True), watch
        self.blobs.prepare()
        self.damaged: list[bytes] = []
        self.begun = 0
        self.scrub = Scrub(self.blobs, self.damaged.append, self._begun, watch.clock, watch.wall, interval, rate)
        self.scrub.open()

    def _begun(self) -> None:
        self.begun += 1

    def put(self, data: bytes) -> bytes:
        writer = Writer(self.blobs)
        writer.write(data)
        return writer.finish()

    def run(self, most: int = 10_000) -> int:
        """Turns until the round is over; time passes."""
        turns = 0
        while self.scrub.state()["running"] and turns < most:
            due = self.scrub.deadline()
            assert due is not None
            self.watch.time = max(self.watch.time, due)
            self.scrub.tick()
            turns += 1
        return turns


def test_a_round_looks_at_every_blob_and_finds_each_damage(tmp_path: Path) -> None:
    rig = Rig(tmp_path, Watch())
    keys = [rig.put(os.urandom(size)) for size in (0, 1, 5000, SLICE, SLICE + 1, 3 * SLICE + 7)]
    for key, data in ((keys[0], b"x"), (keys[1], b""), (keys[4], None)):
        with Path(rig.blobs.path(key)).open("r+b") as file:
            if data is None:
                file.seek(SLICE)
                file.write(b"\0" if os.pread(file.fileno(), 1, SLICE) != b"\0" else b"\1")
            else:
                file.truncate(0)
                file.write(data)
    rig.scrub.start(None)
    rig.run()
    assert sorted(rig.damaged) == sorted([keys[0], keys[1], keys[4]])
    state = rig.scrub.state()
    assert (state["blobs"], state["damaged"], state["finished"]) == (6, 3, 1e9)
    assert rig.begun == 1


def test_it_keeps_to_its_rate(tmp_path: Path) -> None:
    rig = Rig(tmp_path, Watch(), rate=1 << 20)
    rig.put(bytes(4 << 20))
    rig.scrub.start(None)
    began = rig.watch.time
    rig.run()
    assert 3.5 <= rig.watch.time - began <= 4.5


@pytest.mark.parametrize(
    ("done", "took", "rate", "idle", "seconds"),
    [(100, 0.0, 10, 9.0, 10.0), (100, 4.0, 10, 0.0, 6.0), (100, 4.0, 10, 9.0, 36.0), (100, 20.0, 10, 0.0, 0.0)],
)
def test_a_pause_is_by_rate_and_by_what_the_device_can(
    done: int, took: float, rate: int, idle: float, seconds: float
) -> None:
    assert pause(done, took, rate, idle) == seconds


def test_small_blobs_are_looked_at_many_at_a_time(tmp_path: Path) -> None:
    rig = Rig(tmp_path, Watch())
    for number in range(200):
        rig.put(bytes([number]))
    rig.scrub.start(None)
    assert rig.run() <= 200 * 4096 // SLICE + 2


def test_it_begins_by_itself_an_interval_after_the_last_one_ended(tmp_path: Path) -> None:
    watch = Watch()
    first = Rig(tmp_path, watch)
    assert first.scrub.deadline() == watch.time + WEEK  # nothing there is old
    watch.wall_time += WEEK / 2
    assert Rig(tmp_path, watch).scrub.deadline() == watch.time + WEEK / 2
    watch.wall_time += 10 * WEEK
    late = Rig(tmp_path, watch)
    assert late.scrub.deadline() == watch.time + DELAY
    watch.time += DELAY
    late.scrub.tick()
    assert late.scrub.state()["finished"] == watch.wall_time
    watch.wall_time = 0.0  # a clock that lost its time
    assert Rig(tmp_path, watch).scrub.deadline() == watch.time + WEEK


def test_without_an_interval_it_begins_only_when_asked(tmp_path: Path) -> None:
    rig = Rig(tmp_path, Watch(), interval=0.0)
    assert rig.scrub.deadline() is None
    rig.scrub.start(None)
    rig.run()
    assert rig.scrub.deadline() is None


def test_after_a_restart_it_goes_on_where_it_was(tmp_path: Path) -> None:
    watch = Watch()
    first = Rig(tmp_path, watch, interval=0.0)
    for number in range(200):
        first.put(bytes([number]))
    first.scrub.start(None)
    first.run(2)
    done = first.scrub.state()["blobs"]
    assert 0 < done < 200
    first.scrub.close()
    again = Rig(tmp_path, watch, interval=0.0)
    assert again.scrub.deadline() == watch.time + DELAY
    watch.time += DELAY
    again.scrub.tick()
    again.run()
    assert done + again.scrub.state()["blobs"] == 200


@pytest.mark.parametrize("data", [b"", b"x", b"- ", b"zz 5\n", b"aa 5\n", b"\xff\xff", b"- 9" * 1000])
def test_a_torn_record_is_no_obstacle(tmp_path: Path, data: bytes) -> None:
    watch = Watch()
    Rig(tmp_path, watch)
    (tmp_path / "scrub").write_bytes(data)
    due = Rig(tmp_path, watch).scrub.deadline()
    assert due is not None
    assert watch.time + DELAY <= due <= watch.time + WEEK


def test_blobs_that_come_and_go_meanwhile_are_no_damage(tmp_path: Path) -> None:
    rig = Rig(tmp_path, Watch())
    key = rig.put(bytes(5 * SLICE))
    rig.scrub.start(None)
    rig.run(2)
    rig.blobs.delete(key)
    rig.put(bytes(5 * SLICE))  # another file
    rig.put(b"more")
    rig.run()
    assert rig.damaged == []


def test_a_device_that_cannot_read_a_blob_has_damaged_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path, Watch())
    key = rig.put(b"x")

    def broken(_descriptor: int, _buffers: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "readv", broken)
    rig.scrub.start(None)
    rig.run()
    assert rig.damaged == [key]


def test_reading_leaves_access_times_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path, Watch())
    path = Path(rig.blobs.path(rig.put(b"x")))
    os.utime(path, (1, 2))
    rig.scrub.start(None)
    rig.run()
    assert path.stat().st_atime == 1


# -- in the service


def damage(bench: Bench) -> None:
    for path in bench.files():
        path.write_bytes(b"damage")


@pytest.mark.parametrize("cache", [True, False])
def test_what_it_finds_is_set_aside_and_fetched_again(tmp_path: Path, cache: bool) -> None:
    blobs = [os.urandom(1000 * number) for number in range(1, 6)]
    node = FakeNode(*blobs)
    options = {"cache_only": True, "cache_bytes": 1 << 20} if cache else {}
    bench = Bench(tmp_path, node, **options)
    keys = [bench.put(blob) for blob in blobs]
    damage(bench)
    assert bench.ask("scrub")["running"] is True
    bench.rest()
    state = bench.storage.details()
    assert (state["scrub"]["damaged"], state["corrupt"]) == (5, 5)
    assert sorted(path.read_bytes() for path in bench.files()) == sorted(blobs)
    node.blobs.clear()
    assert all(bench.ask("get", hash=key)["ok"] for key in keys)


def test_without_peers_it_is_set_aside_and_the_next_round_tries_again(tmp_path: Path) -> None:
    node = FakeNode(b"x")
    bench = Bench(tmp_path, node)
    key = bench.put(b"x")
    damage(bench)
    node.faults.append("offline")
    bench.ask("scrub")
    bench.rest()
    assert [path.parent.name for path in bench.files()] == ["corrupt"]
    bench.rest(REST)  # asked again later
    assert bench.ask("get", hash=key)["data"] == b"x"
    assert [path.parent.name for path in bench.files()] != ["corrupt"]


def test_a_pinned_blob_that_is_missing_is_fetched_with_the_next_round(tmp_path: Path) -> None:
    node = FakeNode(b"x")
    bench = Bench(tmp_path, node, cache_only=True, cache_bytes=1 << 20)
    key = bench.put(b"x")
    bench.ask("pin", hash=key)
    bench.files()[0].unlink()
    again = Bench(tmp_path, node, cache_only=True, cache_bytes=1 << 20)
    assert not again.ask("has", hash=key)["has"]
    again.ask("scrub", rate=1 << 30)
    again.rest()
    assert again.ask("stat", hash=key)["pinned"] is True
    assert again.storage.details()["pinned"] == 4096


def test_a_scrub_with_a_rate_of_its_own(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.put(bytes(500_000))
    for rate in (0, -1, 2**41, "fast"):
        assert bench.code("scrub", rate=rate) == "bad-request"
    assert bench.ask("scrub", rate=1000)["ok"]
    assert bench.storage.details()["scrub"]["running"] is True
    bench.storage.tick(0.0)
    due = bench.storage.deadline()
    assert due is not None
    assert due >= SLICE / 1000
    assert bench.ask("scrub", rate=1 << 40)["ok"]
    bench.rest()
    assert bench.storage.details()["scrub"]["running"] is False


def test_the_state_is_saved_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saves = []
    monkeypatch.setattr(Scrub, "_save", lambda self: saves.append(self.watch_time))
    monkeypatch.setattr(Scrub, "watch_time", property(lambda self: self._clock()), raising=False)
    rig = Rig(tmp_path, Watch(), rate=SLICE // 100)
    rig.put(bytes(20 * SLICE))
    saves.clear()
    rig.scrub.start(None)
    rig.run()
    gaps = [later - earlier for earlier, later in pairwise(saves)]
    assert 3 <= len(saves) <= 5
    assert min(gaps[:-1]) >= scrub.SAVE_EVERY
