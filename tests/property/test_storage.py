"""The store against a model, with everything that may go wrong: full and failing disks, kills, power cuts, damage on
the disk, peers that lie. What was answered holds; what is served is what was stored; a cache keeps to its bound.

``EDGE_AGENT_EXAMPLES`` raises the number of examples.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_agent.services.blobs import HASH
from edge_agent.services.errors import StartError
from edge_agent.services.lru import BLOCK, cost
from tests.fakes.blobnode import FakeNode
from tests.unit.test_services_storage import Bench

EXAMPLES = int(os.environ.get("EDGE_AGENT_EXAMPLES", "100"))
POOL = [bytes([number]) * size for number, size in enumerate((0, 1, 5000, 9000, 20_000))]  # 12 blocks in all
KEYS = [hashlib.sha256(blob).digest() for blob in POOL]
BLOBS = dict(zip(KEYS, POOL, strict=True))
LIMIT = 8 * BLOCK
CALLS = ("write", "fdatasync", "fsync", "rename", "pwrite")
LIES = ("", "corrupt", "short", "size", "garbage", "offline", "busy", "not-found", "wrong-blob", "bad-request")

numbers = st.integers(0, len(POOL) - 1)
many = st.sets(numbers, min_size=2)  # hypothesis leaves out some rules in each run, so one must do enough
faults = st.one_of(
    st.none(),
    st.none(),
    st.tuples(st.sampled_from(CALLS), st.integers(0, 3), st.sampled_from([errno.ENOSPC, errno.EIO])),
)
Fault = tuple[str, int, int] | None


@contextlib.contextmanager
def failing(fault: Fault) -> Iterator[list[str]]:
    """One call of the system fails after so many others. What failed, if anything did."""
    failed: list[str] = []
    if fault is None:
        yield failed
        return
    name, after, number = fault
    real, left = getattr(os, name), [after]

    def call(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] == -1:
            failed.append(name)
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    setattr(os, name, call)
    try:
        yield failed
    finally:
        setattr(os, name, real)


class Store(RuleBasedStateMachine):
    """``sure``: answered, and not taken back. ``pinned``: likewise. What failed may have happened or not."""

    uploads = Bundle("uploads")

    @initialize(cache=st.booleans(), peers=st.booleans(), stored=many, pinned=many)
    def begin(self, cache: bool, peers: bool, stored: set[int], pinned: set[int]) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ea-store-"))
        self.cache, self.node = cache, FakeNode(checks=False) if peers else None
        self.sure: set[bytes] = set()
        self.pinned: set[bytes] = set()
        self.damaged: set[bytes] = set()
        self.bench = self._open()
        for number in stored:
            self.put(number, None)
        for number in pinned:
            self.pin(number, peers, None)

    def _open(self) -> Bench:
        if self.node is not None:
            self.node.waiting.clear()
        options: dict[str, Any] = {"cache_only": True, "cache_bytes": LIMIT} if self.cache else {}
        return Bench(self.directory, self.node, **options)

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            self.bench.storage.close()
            shutil.rmtree(self.directory)

    def path(self, key: bytes) -> Path:
        return self.bench.root / key.hex()[:2] / key.hex()[2:]

    def visible(self) -> set[bytes]:
        return {key for key in KEYS if self.path(key).exists()}

    def _stored(self, key: bytes) -> None:
        self.sure.add(key)
        self.damaged.discard(key)

    # -- what clients do

    @rule(several=many)
    def put_several(self, several: set[int]) -> None:
        for number in several:
            self.put(number, None)

    @rule(number=numbers, fault=faults)
    def put(self, number: int, fault: Fault) -> None:
        key = KEYS[number]
        with failing(fault) as failed:
            answer = self.bench.ask("put", data=POOL[number])
        if answer["ok"]:
            assert answer["hash"] == key
            self._stored(key)
        elif failed:
            self.damaged.discard(key) if self.path(key).exists() and self._is_sound(key) else None
        else:
            full = ("too-large", "pins-full") if self.cache else ()
            assert answer["error"]["code"] in ("busy", *full)  # busy: as many uploads as there may be

    def _is_sound(self, key: bytes) -> bool:
        return self.path(key).read_bytes() == BLOBS[key]

    @rule(target=uploads, number=numbers)
    def start_upload(self, number: int) -> tuple[bytes, int]:
        answer = self.bench.ask("begin", size=len(POOL[number]))
        return (answer.get("upload", bytes(16)), number)

    @rule(upload=uploads, cut=st.integers(0, 20_000), fault=faults)
    def go_on(self, upload: tuple[bytes, int], cut: int, fault: Fault) -> None:
        token, number = upload
        with failing(fault):
            self.bench.ask("chunk", upload=token, offset=0, data=POOL[number][:cut])

    @rule(upload=uploads, fault=faults)
    def commit(self, upload: tuple[bytes, int], fault: Fault) -> None:
        token, number = upload
        with failing(fault):
            answer = self.bench.ask("commit", upload=token, hash=KEYS[number])
        if answer["ok"]:
            self._stored(KEYS[number])
        else:
            self._look_again(KEYS[number])

    def _look_again(self, key: bytes) -> None:
        """After a failure: a sound file may have come in place of a damaged one."""
        if key in self.damaged and self.path(key).exists() and self._is_sound(key):
            self.damaged.discard(key)

    @rule(several=many, lies=st.lists(st.sampled_from(LIES), max_size=3), has=st.booleans())
    def get(self, several: set[int], lies: list[str], has: bool) -> None:
        for number in several:
            self._get(number, lies, has)

    def _get(self, number: int, lies: list[str], has: bool) -> None:
        key = KEYS[number]
        certain = key in self.visible() and key not in self.damaged
        self._peers(key, lies, has)
        answer = self.bench.ask("get", hash=key, length=100_000)
        if answer["ok"]:
            assert answer["data"] == POOL[number]
            self.damaged.discard(key)
        else:
            assert not certain
            self.sure.discard(key)
        self._settle()

    def _peers(self, key: bytes, lies: list[str], has: bool) -> None:
        if self.node is not None:
            self.node.faults.clear()
            self.node.faults.extend(lies)
            self.node.blobs = {key: BLOBS[key]} if has else {}

    def _settle(self) -> None:
        """Let what is under way come to its end, and see what has become of damaged blobs."""
        if self.node is not None:
            self.node.faults.clear()
        self.bench.rest()
        for key in list(self.damaged):
            if not self.path(key).exists():
                self.damaged.discard(key)
                self.sure.discard(key)
            elif self._is_sound(key):
                self.damaged.discard(key)

    @rule(number=numbers, has=st.booleans(), fault=faults)
    def pin(self, number: int, has: bool, fault: Fault) -> None:
        key = KEYS[number]
        self._peers(key, [], has)
        with failing(fault) as failed:
            answer = self.bench.ask("pin", hash=key)
        if answer["ok"]:
            assert key in self.visible()
            self.pinned.add(key)
            self._stored(key)
        self._settle()
        if failed:
            self._pins_as_told()

    @rule(number=numbers, fault=faults)
    def unpin(self, number: int, fault: Fault) -> None:
        with failing(fault) as failed:
            answer = self.bench.ask("unpin", hash=KEYS[number])
        if answer["ok"]:
            assert answer["unpinned"] is (KEYS[number] in self.pinned)
            self.pinned.discard(KEYS[number])
        elif failed:
            self._pins_as_told()

    def _pins_as_told(self) -> None:
        told = self.told()
        assert len(told ^ self.pinned) <= 1, "only what failed may be either way"
        self.pinned = told

    def told(self) -> set[bytes]:
        return {each["hash"] for each in self.bench.ask("wishes")["wishes"] if each["pinned"]}

    @rule(number=numbers)
    def delete(self, number: int) -> None:
        answer = self.bench.ask("delete", hash=KEYS[number])
        assert answer["ok"] is (KEYS[number] not in self.pinned)
        if answer["ok"]:
            self.sure.discard(KEYS[number])
            self.damaged.discard(KEYS[number])
            assert KEYS[number] not in self.visible()

    @rule(number=numbers, wished=st.integers(1, 4))
    def replicas(self, number: int, wished: int) -> None:
        answer = self.bench.ask("replicas", hash=KEYS[number], wished=wished)
        if answer["ok"]:
            assert self.bench.ask("replicas", hash=KEYS[number])["wished"] == wished

    # -- what the world does

    @rule(several=many, cut=st.booleans(), read=st.booleans())
    def damage(self, several: set[int], cut: bool, read: bool) -> None:
        for number in several:
            self._damage(number, cut)
        if read:
            self.get(several, [], True)

    def _damage(self, number: int, cut: bool) -> None:
        path = self.path(KEYS[number])
        if path.exists() and POOL[number]:
            data = POOL[number]
            path.write_bytes(data[: len(data) // 2] if cut else b"\xff" + data[1:])
            self.damaged.add(KEYS[number])

    @rule(has=st.booleans())
    def scrub(self, has: bool) -> None:
        if self.node is not None:
            self.node.faults.clear()
            self.node.blobs = dict(BLOBS) if has else {}
        self.bench.ask("scrub", rate=1 << 40)
        self.bench.rest()
        for key in self.damaged:
            assert not self.path(key).exists() or self._is_sound(key), "damage that a scrub has not found"
        if self.node is not None and has and not self.cache:
            assert self.damaged <= self.visible()
            assert self.pinned <= self.visible()
        self._settle()

    @rule()
    def stop(self) -> None:
        self.bench.storage.close()
        self.bench = self._open()

    @rule(fault=faults)
    def kill(self, fault: Fault) -> None:
        with failing(fault), contextlib.suppress(StartError):
            self.bench = self._open()
            return
        self.bench = self._open()

    @precondition(lambda self: self.cache)
    @rule(torn=st.sets(numbers))
    def power_cut(self, torn: set[int]) -> None:
        """What a cache has not flushed may be torn; what is pinned was flushed."""
        for number in torn:
            if KEYS[number] not in self.pinned:
                self._damage(number, cut=True)
        self.bench = self._open()

    # -- what holds

    @invariant()
    def the_bound_is_kept(self) -> None:
        if getattr(self, "cache", False):
            files = [path for path in self.bench.files() if path.parent.name != "corrupt"]
            assert sum(cost(path.stat().st_size) for path in files) <= LIMIT
            told = self.bench.storage.details()
            assert told["pinned"] <= told["used"] <= LIMIT - told["reserved"]
            assert bool(told["reserved"]) is bool(told["uploads"] + told["fetches"])

    @invariant()
    def what_was_answered_is_here(self) -> None:
        if hasattr(self, "bench"):
            kept = self.pinned if self.cache else self.sure
            assert {key for key in kept - self.damaged if key in self.sure} <= self.visible()

    @invariant()
    def pins_are_as_answered(self) -> None:
        if hasattr(self, "bench"):
            assert self.told() == self.pinned

    @invariant()
    def what_is_visible_is_whole(self) -> None:
        if hasattr(self, "bench"):
            for key in self.visible() - self.damaged:
                assert self._is_sound(key)
            assert all(len(bytes.fromhex(each.hex())) == HASH for each in self.bench.ask("list")["hashes"])


Store.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStore = Store.TestCase
