"""The storage service without sockets: requests in, answers out, files underneath."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.peers.wire import pack
from edge_agent.services import checks, held, requests, uploads
from edge_agent.services.blobs import Blobs, Writer
from edge_agent.services.lru import BLOCK, cost
from edge_agent.services.options import Options
from edge_agent.services.storage import MAX_PIECE, Storage
from tests.fakes.blobnode import FakeNode

if TYPE_CHECKING:
    from edge_agent.services.runtime import Runtime


class Clock:
    """What the storage uses of the runtime."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time


class Linked(Storage):
    """With a node service in the hand of the test."""

    def __init__(self, options: Options, node: FakeNode) -> None:
        super().__init__(options)
        self.node = node
        node.deliver = self._relayed

    def link(self, runtime: Runtime) -> FakeNode:
        return self.node


class Bench:
    """A storage service and its clock; ``ask`` answers as a client would see it.

    With ``node`` it reads through.
    """

    def __init__(self, directory: Path, node: FakeNode | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.directory, self.node = directory, node
        self.root = directory / ("cache" if options.get("cache_only") else "blobs")
        told = Options("storage", str(directory), str(directory), read_through=node is not None, **options)
        self.storage = Linked(told, node) if node else Storage(told)
        self.storage.open(self.clock)  # type: ignore[arg-type]  # only its clock is used

    def send(self, op: str, answers: list[bytes], user: str = "uid:0", **arguments: Any) -> None:
        """Ask, and let the answer come when it comes."""
        data = pack({"v": 1, "id": 1, "op": op, **arguments})
        request = requests.parse(data, self.storage.request_limit, user, answers.append)
        assert request is not None
        requests.perform(request, self.storage.operations())

    def ask(self, op: str, user: str = "uid:0", **arguments: Any) -> dict[str, Any]:
        answers: list[bytes] = []
        self.send(op, answers, user, **arguments)
        while self.storage.busy():
            self.storage.work()
        while not answers:
            self.turn()
        (answer,) = answers
        unpacked: dict[str, Any] = msgpack.unpackb(answer)
        return unpacked

    def turn(self) -> None:
        """What happens next, be it that time passes."""
        if self.storage.busy():
            self.storage.work()
        elif self.node is not None and self.node.waiting:
            self.node.answer()
        else:
            due = self.storage.deadline()
            assert due is not None
            self.clock.time = max(self.clock.time, due)
            self.storage.tick(self.clock.time)

    def rest(self, seconds: float = 300.0) -> None:
        """Go on until nothing is to be done for so many seconds."""
        while self.storage.busy() or (self.node and self.node.waiting) or self._due() < self.clock.time + seconds:
            self.turn()

    def _due(self) -> float:
        due = self.storage.deadline()
        return math.inf if due is None else due

    def code(self, op: str, **arguments: Any) -> str:
        answer = self.ask(op, **arguments)
        assert answer["ok"] is False
        code: str = answer["error"]["code"]
        return code

    def put(self, data: bytes) -> bytes:
        key: bytes = self.ask("put", data=data)["hash"]
        return key

    def files(self) -> list[Path]:
        """Of blobs: whole, on their way in, set aside."""
        own = ("scrub", "wishes")
        return [path for path in self.root.rglob("*") if path.is_file() and not path.name.startswith(own)]


@pytest.fixture
def store(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def cached(path: Path, limit: int = 10 * BLOCK) -> Bench:
    return Bench(path, cache_only=True, cache_bytes=limit)


@pytest.mark.parametrize(
    ("told", "memory", "bound"),
    [(None, None, 64 << 20), (None, 128 << 20, 64 << 20), (None, 2000, 1000), (None, 0, 1), (7000, 1 << 30, 7000)],
)
def test_a_cache_has_half_of_its_memory_limit_unless_it_is_told(
    tmp_path: Path, told: int | None, memory: int | None, bound: int
) -> None:
    options = Options("storage", str(tmp_path), str(tmp_path), cache_only=True, cache_bytes=told)
    storage = Storage(options, lambda: memory)
    storage.open(Clock())  # type: ignore[arg-type]  # only its clock is used
    assert storage.details()["limit"] == bound


@pytest.mark.parametrize("mode", ["store", "cache"])
@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, MAX_PIECE])
def test_what_is_put_is_got(tmp_path: Path, mode: str, size: int) -> None:
    bench = cached(tmp_path, 1 << 20) if mode == "cache" else Bench(tmp_path)
    data = os.urandom(size)
    key = bench.put(data)
    assert key == hashlib.sha256(data).digest()
    assert bench.ask("get", hash=key, length=MAX_PIECE)["data"] == data
    assert bench.ask("stat", hash=key)["size"] == size
    assert bench.ask("has", hash=key)["has"] is True
    assert [path.stat().st_mode & 0o777 for path in bench.files()] == [0o600]


def test_pieces_are_read_from_anywhere(store: Bench) -> None:
    key = store.put(bytes(range(256)))
    assert store.ask("get", hash=key, offset=250, length=100)["data"] == bytes(range(250, 256))
    assert store.ask("get", hash=key, offset=256)["data"] == b""
    assert store.ask("get", hash=key, offset=9999)["data"] == b""


def test_an_upload_arrives_in_chunks(store: Bench) -> None:
    data = os.urandom(200_000)
    begun = store.ask("begin", size=len(data), hash=hashlib.sha256(data).digest())
    assert begun["exists"] is False
    for start in range(0, len(data), 70_000):
        piece = data[start : start + 70_000]
        told = store.ask("chunk", upload=begun["upload"], offset=start, data=piece)
        assert told["offset"] == start + len(piece)
    assert not store.ask("has", hash=hashlib.sha256(data).digest())["has"], "visible before it is complete"
    assert store.ask("commit", upload=begun["upload"])["hash"] == hashlib.sha256(data).digest()
    assert store.ask("begin", size=len(data), hash=hashlib.sha256(data).digest())["exists"] is True
    assert store.code("chunk", upload=begun["upload"], offset=0, data=b"") == "no-upload"


def test_a_repeated_chunk_is_fine_a_gap_or_an_overlap_is_not(store: Bench) -> None:
    token = store.ask("begin", size=10)["upload"]
    assert store.ask("chunk", upload=token, offset=0, data=b"01234")["offset"] == 5
    assert store.ask("chunk", upload=token, offset=0, data=b"01234")["offset"] == 5
    assert store.code("chunk", upload=token, offset=6, data=b"6") == "offset"
    assert store.code("chunk", upload=token, offset=3, data=b"3456") == "offset"
    assert store.code("chunk", upload=token, offset=5, data=b"567890") == "size"
    assert store.code("commit", upload=token) == "size"
    store.ask("chunk", upload=token, offset=5, data=b"56789")
    assert store.ask("commit", upload=token)["hash"] == hashlib.sha256(b"0123456789").digest()


def test_a_wrong_hash_is_refused_and_nothing_stays(store: Bench) -> None:
    token = store.ask("begin", size=1)["upload"]
    store.ask("chunk", upload=token, offset=0, data=b"x")
    assert store.code("commit", upload=token, hash=bytes(32)) == "hash-mismatch"
    assert store.files() == []


def test_an_upload_belongs_to_who_began_it(store: Bench) -> None:
    token = store.ask("begin", user="uid:7", size=1)["upload"]
    assert store.code("chunk", upload=token, offset=0, data=b"x") == "no-upload"
    assert store.ask("abort", user="uid:7", upload=token)["ok"]
    assert store.files() == []


def test_uploads_are_bounded_and_expire(store: Bench) -> None:
    resting = store.storage.deadline()
    for _ in range(uploads.MOST):
        assert store.ask("begin", size=1)["ok"]
    assert store.code("begin", size=1) == "busy"
    assert store.storage.deadline() == uploads.SILENCE
    store.clock.time = uploads.SILENCE
    store.storage.tick(store.clock.time)
    assert store.files() == []
    assert store.storage.deadline() == resting
    assert store.ask("begin", size=1)["ok"]


def test_what_cannot_fit_on_the_disk_is_refused_at_once(store: Bench) -> None:
    assert store.code("begin", size=2**50) == "no-space"


@pytest.mark.parametrize("mode", ["store", "cache"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "grow"])
def test_a_damaged_blob_is_never_served(tmp_path: Path, mode: str, damage: str) -> None:
    bench = cached(tmp_path, 1 << 20) if mode == "cache" else Bench(tmp_path)
    key = bench.put(os.urandom(100_000))
    assert bench.ask("get", hash=key)["ok"]  # once checked, so that the damage must be noticed by the file's mark
    (path,) = bench.files()
    with path.open("r+b") as file:
        if damage == "flip":
            file.seek(70_000)
            file.write(bytes([os.pread(file.fileno(), 1, 70_000)[0] ^ 1]))
        else:
            file.truncate(50_000 if damage == "truncate" else 100_001)
    assert bench.code("get", hash=key, length=10) == "corrupt"
    assert bench.code("get", hash=key) == "not-found"
    assert bench.storage.details()["corrupt"] == 1
    kept = [path for path in bench.files() if path.parent.name == "corrupt"]
    assert len(kept) == (1 if mode == "store" else 0)
    if mode == "cache":
        assert bench.storage.details()["used"] == 0


def test_a_large_blob_is_checked_in_slices_and_others_are_served_meanwhile(store: Bench) -> None:
    data = os.urandom(3 * checks.SLICE)
    writer = Writer(Blobs(str(store.root), durable=True))
    writer.write(data)
    large, small = writer.finish(), store.put(b"small")
    store = Bench(store.root.parent)  # what was written by another process is not known to be sound
    answers: list[bytes] = []
    for key in (large, small, large):
        message = {"v": 1, "id": len(answers), "op": "get", "hash": key}
        requests.perform(requests.Request(message, "uid:0", answers.append), store.storage.operations())
    slices = 0
    while store.storage.busy():
        store.storage.work()
        slices += 1
    assert slices == 3 + 1 + 1
    assert [msgpack.unpackb(answer)["size"] for answer in answers] == [len(data), len(data), 5]


def test_a_blob_deleted_while_it_is_checked_is_not_found(store: Bench) -> None:
    key = store.put(b"x")
    store = Bench(store.root.parent)
    answers: list[bytes] = []
    request = requests.Request({"v": 1, "id": 1, "op": "get", "hash": key}, "uid:0", answers.append)
    requests.perform(request, store.storage.operations())
    assert store.ask("delete", hash=key)["deleted"] is True
    assert [msgpack.unpackb(answer)["error"]["code"] for answer in answers] == ["not-found"]


def test_checks_are_bounded(store: Bench) -> None:
    key = store.put(b"x")
    store = Bench(store.root.parent)
    refused = []
    for _ in range(held.MOST + 1):
        answers: list[bytes] = []
        request = requests.Request({"v": 1, "id": 1, "op": "get", "hash": key}, "uid:0", answers.append)
        requests.perform(request, store.storage.operations())
        refused += answers
    assert [msgpack.unpackb(answer)["error"]["code"] for answer in refused] == ["busy"]


def test_hashes_are_listed_in_pages(store: Bench) -> None:
    keys = sorted(store.put(bytes([number])) for number in range(50))
    pages, after = [], b""
    while True:
        page = store.ask("list", "uid:0", limit=7, **({"after": after} if after else {}))
        pages += page["hashes"]
        if not page["more"]:
            break
        after = page["hashes"][-1]
    assert pages == keys


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    bench = cached(tmp_path, 3 * BLOCK)
    a, b, c = (bench.put(data) for data in (b"a", b"b", b"c"))
    bench.ask("get", hash=a)
    d = bench.put(b"d")
    assert [bench.ask("has", hash=key)["has"] for key in (a, b, c, d)] == [True, False, True, True]
    assert len(bench.files()) == 3


def test_what_is_larger_than_the_cache_is_refused_and_evicts_nothing(tmp_path: Path) -> None:
    bench = cached(tmp_path, 2 * BLOCK)
    key = bench.put(b"a")
    assert bench.code("put", data=bytes(2 * BLOCK + 1)) == "too-large"
    assert bench.ask("has", hash=key)["has"]


def test_a_smaller_cache_after_a_restart_shrinks_to_its_bound_oldest_first(tmp_path: Path) -> None:
    bench = cached(tmp_path, 8 * BLOCK)
    keys = [bench.put(bytes([number])) for number in range(8)]
    for age, key in enumerate(keys):
        os.utime(bench.root / key.hex()[:2] / key.hex()[2:], (age, age))
    again = cached(tmp_path, 3 * BLOCK)
    assert [again.ask("has", hash=key)["has"] for key in keys] == [False] * 5 + [True] * 3
    assert again.storage.details()["used"] == 3 * BLOCK


def test_a_cache_never_touches_the_store_of_the_same_directory(tmp_path: Path) -> None:
    store = Bench(tmp_path)
    key = store.put(b"for good")
    cache = cached(tmp_path, BLOCK)
    cache.put(b"1")
    cache.put(b"2")
    assert store.ask("get", hash=key)["data"] == b"for good"


SIZES = st.integers(0, 6 * BLOCK)


@settings(max_examples=40, deadline=None)
@given(
    st.data(),
    st.lists(st.tuples(st.sampled_from(["put", "begin", "chunk", "commit", "abort", "get"]), SIZES), max_size=40),
)
def test_the_files_of_a_cache_never_exceed_its_bound_even_while_writing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, steps: list[tuple[str, int]]
) -> None:
    bench = cached(tmp_path_factory.mktemp("lru"), 8 * BLOCK)
    tokens: list[bytes] = []
    keys: list[bytes] = [bytes(32)]
    for verb, size in steps:
        if verb == "put":
            answer = bench.ask("put", data=size.to_bytes(4, "big") * (size // 4))
            keys += [answer["hash"]] if answer["ok"] else []
        elif verb == "begin":
            answer = bench.ask("begin", size=size)
            tokens += [answer["upload"]] if answer["ok"] else []
        elif verb == "get":
            bench.ask("get", hash=data.draw(st.sampled_from(keys)))
        elif tokens:
            token = data.draw(st.sampled_from(tokens))
            arguments: dict[str, Any] = {"offset": 0, "data": bytes(size)} if verb == "chunk" else {}
            bench.ask(verb, upload=token, **arguments)
        assert sum(cost(path.stat().st_size) for path in bench.files()) <= 8 * BLOCK


def test_a_full_disk_refuses_and_leaves_nothing(store: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert store.code("put", data=b"x") == "no-space"
    assert store.files() == []


def test_a_durable_blob_is_on_the_disk_before_its_name_and_the_name_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Bench(tmp_path)
    calls: list[str] = []

    def record(name: str) -> None:
        real = getattr(os, name)

        def call(first: Any, *rest: Any) -> Any:
            about = Path(f"/proc/self/fd/{first}").readlink() if isinstance(first, int) else Path(str(first))
            calls.append(f"{name} {about.parent.name if name == 'fdatasync' else about.name}")
            return real(first, *rest)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "fdatasync", "rename"):
        record(name)
    key = store.put(b"x")
    upload = calls[2].removeprefix("rename ")
    assert calls == ["fdatasync uploads", "fsync blobs", f"rename {upload}", f"fsync {key.hex()[:2]}"]


def test_directories_whose_maker_was_killed_are_flushed_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    Bench(tmp_path)
    assert flushed == ["blobs", tmp_path.name]


def test_a_damaged_blob_that_cannot_be_taken_out_is_refused_all_the_same(
    store: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = store.put(b"x")
    store.files()[0].write_bytes(b"y")

    def fails(_source: str, _target: str) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "rename", fails)
    for _ in range(2):
        assert store.code("get", hash=key) == "corrupt"


def test_it_tells_what_it_measures(tmp_path: Path) -> None:
    bench = cached(tmp_path)
    bench.ask("pin", hash=bench.put(b"x"))
    told = {metric.name: list(metric.samples) for metric in bench.storage.metrics()}
    assert told["storage_pinned_bytes"] == [({}, BLOCK)]
    assert told["storage_limit_bytes"] == [({}, 10 * BLOCK)]
    assert told["storage_fetches_total"] == [({"outcome": "fetched"}, 0), ({"outcome": "failed"}, 0)]
