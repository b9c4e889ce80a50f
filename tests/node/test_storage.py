"""The storage service as a real process: large blobs in little memory, kills, and blobs that come from peers."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.peers import transport
from edge_agent.services import keyfile
from edge_agent.services.client import PIECE, ClientError, ServiceError, Storage
from tests.node.bundled import Running, free_port, until

BLOB = int(os.environ.get("EDGE_AGENT_TEST_BLOB", str(64 << 20)))  # bytes; 2147483648 for the claim of the page
KILLS = int(os.environ.get("EDGE_AGENT_TEST_KILLS", "6"))
PEAK = 32 * 1024 * 1024  # bytes of memory, whatever the size of a blob


def client(service: Running, timeout: float = 20.0) -> Storage:
    return Storage.local(str(service.run), timeout=timeout)


def peak(service: Running) -> int:
    """VmHWM: the most that was ever resident, shared libraries included, bytes."""
    for line in Path(f"/proc/{service.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


def pieces(size: int) -> Iterator[bytes]:
    """No two alike, and cheap to make."""
    seed = os.urandom(PIECE)
    for number in range(-(-size // PIECE)):
        piece = number.to_bytes(8, "big") + seed[8:]
        yield piece[: min(PIECE, size - number * PIECE)]


@pytest.mark.parametrize("mode", ["store", "cache"])
def test_a_blob_far_larger_than_its_memory_goes_in_and_out(base: Path, mode: str) -> None:
    options: dict[str, Any] = {"cache_only": True, "cache_bytes": BLOB + (1 << 20)} if mode == "cache" else {}
    with Running("storage", base, **options) as service, client(service.ready()) as storage:
        began = time.monotonic()
        key = storage.put_stream(pieces(BLOB), BLOB)
        stored = time.monotonic()
        size = sum(len(piece) for piece in storage.get_stream(key))  # which checks the hash
        read = time.monotonic()
        assert size == BLOB
        peaks = [peak(service)]
        service.stop()
        with Running("storage", base, **options) as again, client(again.ready()) as later:
            restarted = time.monotonic()
            assert sum(len(piece) for piece in later.get_stream(key)) == BLOB
            checked = time.monotonic()
            later.scrub(rate=1 << 36)
            while later.health()["scrub"]["running"]:
                time.sleep(0.05)
            assert later.health()["scrub"]["bytes"] == BLOB
            peaks.append(peak(again))
    rates = [BLOB / (1 << 20) / seconds for seconds in (stored - began, read - stored, checked - restarted)]
    print(f"\n{mode}: in, out, checked and out: {', '.join(f'{rate:.0f}' for rate in rates)} MiB/s; peaks {peaks}")
    assert max(peaks) <= PEAK


class Writing(threading.Thread):
    """A client that stores, pins and unpins until the service is gone, and knows what was answered."""

    def __init__(self, service: Running, seed: int) -> None:
        super().__init__(daemon=True)
        self.stored: list[bytes] = []
        self.pins: dict[bytes, bool] = {}
        self.unsure: set[bytes] = set()  # asked for, and not answered
        self._storage, self._random = client(service, timeout=2.0), random.Random(seed)

    def run(self) -> None:
        try:
            with self._storage:
                while True:
                    self._step()
        except ClientError:
            pass

    def _step(self) -> None:
        if self.stored and self._random.random() < 0.5:
            key = self._random.choice(self.stored)
            self.unsure.add(key)
            pinned = self._random.random() < 0.7
            if pinned:
                self._storage.pin(key)
            else:
                self._storage.unpin(key)
            self.pins[key] = pinned
            self.unsure.discard(key)
        else:
            size = self._random.choice((0, 100, 5000, 300_000, 3_000_000, 6_000_000))
            self.stored.append(self._storage.put_stream(pieces(size), size))


@pytest.mark.parametrize("mode", ["store", "cache"])
def test_a_kill_at_any_moment_loses_nothing_that_was_answered_and_tears_nothing(base: Path, mode: str) -> None:
    """``EDGE_AGENT_TEST_KILLS`` says how often."""
    options: dict[str, Any] = {"cache_only": True, "cache_bytes": 1 << 40} if mode == "cache" else {}
    chance = random.Random(KILLS)
    stored: set[bytes] = set()
    pins: dict[bytes, bool] = {}
    for number in range(KILLS):
        with Running("storage", base, **options) as service:
            service.ready()
            writing = Writing(service, number)
            writing.start()
            time.sleep(chance.uniform(0.0, 0.7))
            service.process.send_signal(signal.SIGKILL)
            service.process.wait()
            writing.join()
        stored |= set(writing.stored)
        pins |= writing.pins
        with Running("storage", base, **options) as again, client(again.ready()) as storage:
            assert list((again.data / ("cache" if mode == "cache" else "blobs") / "uploads").iterdir()) == []
            here = set(storage.hashes())
            assert stored <= here, "answered, and lost"
            for key in here - stored | set(writing.stored):
                storage.get(key)  # raises when a byte is wrong
            told = {each["hash"] for each in storage.wishes() if each["pinned"]}
            for key, pinned in pins.items():
                assert key in writing.unsure or (key in told) is pinned
            pins |= {key: key in told for key in writing.unsure}
            stored = here
            health = storage.health()
            assert health["corrupt"] == 0
            if mode == "cache":
                assert health["blobs"] == len(here)
    print(f"\n{mode}: {KILLS} kills, {len(stored)} blobs, {len(pins)} pinned or unpinned")
    assert len(stored) > KILLS // 2


# -- blobs of peers, by real node services


class Pair:
    """A full node with a store, a light one with a cache that reads through."""

    def __init__(self, base: Path) -> None:
        self.base, self.port = base, free_port()
        self.keys = {each: self._key(each) for each in ("full", "light")}
        self.running: list[Running] = []

    def _key(self, name: str) -> str:
        path = self.base / name / "data/node"
        path.mkdir(parents=True, mode=0o700)
        secret = keyfile.load_or_make(str(path / "node.key"), "curve25519", 40, transport.new_secret, 0)
        return transport.Key(secret.text).public

    def start(self, where: str, name: str, **options: Any) -> Running:
        self.running.append(Running(name, self.base / where, **options))
        return self.running[-1].ready()

    def full(self) -> tuple[Running, Running]:
        link = {"mode": "full", "listen": f"tcp://127.0.0.1:{self.port}", "peers": [{"key": self.keys["light"]}]}
        return self.start("full", "storage"), self.start("full", "node", p2p=link)

    def light(self) -> tuple[Running, Running]:
        peer = {"endpoint": f"tcp://127.0.0.1:{self.port}", "key": self.keys["full"]}
        cache = {"cache_only": True, "cache_bytes": 64 << 20, "read_through": True, "scrub_interval": 0}
        link = {"mode": "light", "peers": [peer], "heartbeat": 1}
        return self.start("light", "storage", **cache), self.start("light", "node", p2p=link)

    def close(self) -> None:
        for each in self.running:
            each.__exit__(None, None, None)


@pytest.fixture
def pair(base: Path) -> Iterator[Pair]:
    made = Pair(base)
    yield made
    made.close()


def test_a_cache_gets_what_a_peer_has_and_serves_it_when_the_peer_is_gone(pair: Pair) -> None:
    store, full = pair.full()
    cache, _ = pair.light()
    data = os.urandom(3_000_000)
    with client(store) as far, client(cache) as near:
        key, later = far.put(data), far.put(b"never asked for while there was time")
        assert not near.has(key)
        assert near.get(key) == data
        near.pin(key)
        assert near.stat(key)["pinned"] is True
        with pytest.raises(ServiceError) as caught:
            near.get(bytes(32))
        assert caught.value.code == "not-found"
        full.process.kill()
        full.process.wait()
        assert near.get(key) == data
        with pytest.raises(ServiceError) as caught:
            near.get(later)
        assert caught.value.code == "unreachable"
    cache.process.kill()
    cache.process.wait()
    cache = pair.start("light", "storage", cache_only=True, cache_bytes=64 << 20)
    with client(cache) as near:
        assert near.get(key) == data
        assert near.stat(key)["pinned"] is True


def test_clients_share_a_transfer(pair: Pair) -> None:
    store, _ = pair.full()
    cache, _ = pair.light()
    size = 8 << 20
    with client(store) as far:
        key = far.put_stream(pieces(size), size)
    sizes: list[int] = []

    def read() -> None:
        with client(cache) as near:
            sizes.append(sum(len(piece) for piece in near.get_stream(key)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [size] * 4
    with client(cache) as near:
        families = {name: samples for name, _, _, samples in near.metrics()}
    assert families["storage_fetched_bytes_total"] == [[{}, size]]
    assert families["storage_fetches_total"][0] == [{"outcome": "fetched"}, 1]


def test_a_scrub_brings_damaged_blobs_back_from_a_peer(pair: Pair) -> None:
    store, _ = pair.full()
    cache, _ = pair.light()
    with client(store) as far, client(cache) as near:
        keys = [far.put(os.urandom(50_000)) for _ in range(5)]
        for key in keys:
            near.get(key)
        for key in keys[:3]:
            path = cache.data / "cache" / key.hex()[:2] / key.hex()[2:]
            with path.open("r+b") as file:
                file.seek(40_000)
                file.write(bytes(100))
        near.scrub(rate=1 << 30)
        until(lambda: near.health()["corrupt"] == 3, "the damage found")
        until(lambda: all(near.has(key) for key in keys), "the blobs back")
        for key in keys:
            near.get(key)


def test_without_a_node_service_it_says_so_and_serves_what_it_has(base: Path) -> None:
    with Running("storage", base, cache_only=True, read_through=True) as cache, client(cache.ready()) as near:
        key = near.put(b"x")
        with pytest.raises(ServiceError, match="node does not run here") as caught:
            near.get(bytes(32))
        assert caught.value.code == "unreachable"
        assert near.get(key) == b"x"
