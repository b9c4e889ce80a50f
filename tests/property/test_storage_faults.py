"""The storage service on a disk where the process dies before any call that changes it, and where a power cut takes
what was not flushed: names of directories as well as bytes (``disk.py``). ``test_storage`` has peers that lie.
"""

from __future__ import annotations

import gc
import hashlib
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgpack
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge_agent.host import journal
from edge_agent.peers.serving import DeclinedError
from edge_agent.peers.wire import pack
from edge_agent.services import blobs, inventory, requests, scrub, wishes
from edge_agent.services import storage as module
from edge_agent.services.errors import StartError
from edge_agent.services.lru import BLOCK, cost
from edge_agent.services.options import Options
from edge_agent.services.storage import MAX_PIECE, Storage

from .disk import FAULTS, Died, Disk

EXAMPLES = int(os.environ.get("EDGE_AGENT_EXAMPLES", "30"))

POOL = [random.Random(seed).randbytes(size) for seed, size in enumerate((0, 1, 4096, 4097, 9000, 12000, 300, 20000))]
KEYS = [hashlib.sha256(data).digest() for data in POOL]
LIMIT = 8 * BLOCK
MODULES = (blobs, inventory, journal, scrub, wishes, module)

which = st.integers(0, len(POOL) - 1)


class Peers:
    """The node service: ``mood`` of the peers behind it."""

    def __init__(self, told: Callable[[int, Any], None]) -> None:
        self._told = told
        self.mood = "off"
        self.asked = 0
        self._queue: list[tuple[int, bytes, int, int]] = []

    def ask(self, token: int, op: str, arguments: dict[str, Any]) -> None:
        assert op == "fetch"
        self.asked += 1
        self._queue.append((token, arguments["hash"], arguments["offset"], arguments["length"]))

    def answer(self) -> bool:
        """Give the next answer; False: nobody waits for one."""
        if not self._queue:
            return False
        token, key, offset, length = self._queue.pop(0)
        if self.mood == "off":
            self._told(token, DeclinedError("offline", "no peer can be reached"))
        elif self.mood == "without":
            self._told(token, DeclinedError("not-found", "there is no such blob"))
        else:
            data = POOL[KEYS.index(key)]
            if self.mood == "lying" and data:
                data = bytes([data[0] ^ 1]) + data[1:]
            self._told(token, {"data": data[offset : offset + length], "size": len(data), "peer": "a"})
        return True

    def deadline(self) -> float | None:
        return None

    def tick(self, now: float) -> None:
        pass

    def close(self) -> None:
        self._queue.clear()


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time


class Linked(Storage):
    """Storage with these peers."""

    def link(self, runtime: Any) -> Any:
        self.peers = Peers(self._relayed)
        return self.peers


class StorageMachine(RuleBasedStateMachine):
    """``here``/``pinned``: True, False, or None when it may be either."""

    @initialize(cache=st.booleans(), through=st.booleans(), seed=st.integers(0, 2**32))
    def begin(self, cache: bool, through: bool, seed: int) -> None:
        self.base = Path(tempfile.mkdtemp(dir="/dev/shm"))
        self.data = self.base / "data"
        self.data.mkdir()
        self.cache, self.through, self.chance = cache, through, random.Random(seed)
        self.disk = Disk(self.data)
        self._real = {each: each.os for each in MODULES}
        for each in MODULES:
            each.os = self.disk  # type: ignore[attr-defined]
        self.clock = Clock()
        self.here: dict[int, bool | None] = dict.fromkeys(range(len(POOL)), False)
        self.pinned: dict[int, bool | None] = dict.fromkeys(range(len(POOL)), False)
        self.damaged: set[int] = set()
        self.storage: Linked | None = None
        self.start()

    def teardown(self) -> None:
        if hasattr(self, "base"):
            for each, real in self._real.items():
                each.os = real  # type: ignore[attr-defined]
            shutil.rmtree(self.base)

    # -- the process

    def start(self) -> None:
        options = Options(
            "storage", str(self.data), str(self.data), cache_only=self.cache, cache_bytes=LIMIT,
            read_through=self.through, scrub_interval=0.0,
        )  # fmt: skip
        self.storage = Linked(options, lambda: None)
        self.storage.open(self.clock)  # type: ignore[arg-type]  # only its clock is used

    def ask(self, op: str, **arguments: Any) -> dict[str, Any] | None:
        """The answer; None: the process died, and another one has started."""
        storage, answers = self.storage, list[bytes]()
        assert storage is not None
        data = pack({"v": 1, "id": 1, "op": op, **arguments})
        request = requests.parse(data, storage.request_limit, "uid:0", answers.append)
        assert request is not None
        died = False
        try:
            requests.perform(request, storage.operations())
            self.settle(lambda: bool(answers))
        except Died:
            died = True  # not from in here, where the traceback still holds what the process had open
        if died:
            del storage, request
            self.again()
            return None
        (answer,) = answers
        if self.disk.unreadable:
            self.disk.unreadable = False
            self.damaged |= {index for index, key in enumerate(KEYS) if key == arguments.get("hash")}
        unpacked: dict[str, Any] = msgpack.unpackb(answer)
        return unpacked

    def settle(self, done: Callable[[], bool]) -> None:
        """What the loop would do until then."""
        storage = self.storage
        assert storage is not None
        for _ in range(500):
            while storage.busy():
                storage.work()
            if done():
                return
            if self.through and storage.peers.answer():
                continue
            due = storage.deadline()
            if due is not None:
                self.clock.time = max(self.clock.time, due)
                storage.tick(self.clock.time)
        assert done(), "no answer"

    def again(self, cut: bool = False) -> None:
        """A new process, on the disk as the old one left it, or as a power cut did."""
        self.disk.quiet()
        self._close_files()
        if cut:
            self.disk.cut(self.chance)
        self.start()

    def _close_files(self) -> None:
        """What the kernel does for a dead process."""
        self.storage = None
        gc.collect()  # generators close theirs by themselves, by number
        for link in Path("/proc/self/fd").iterdir():
            try:
                if str(link.readlink()).startswith(str(self.data)):
                    os.close(int(link.name))
            except OSError:
                pass

    # -- what is asked for

    def forget(self, index: int) -> None:
        self.here[index] = None

    def evictable(self) -> None:
        """Anything that is not pinned may have given way."""
        if self.cache:
            for index, here in self.here.items():
                if here and not self.pinned[index]:
                    self.here[index] = None

    @rule(index=which, chunked=st.booleans())
    def put(self, index: int, chunked: bool) -> None:
        data = POOL[index]
        if chunked:
            begun = self.ask("begin", size=len(data))
            if begun is None or not begun["ok"]:
                self.evictable()
                return
            for start in range(0, len(data), 5000):
                told = self.ask("chunk", upload=begun["upload"], offset=start, data=data[start : start + 5000])
                if told is None or not told["ok"]:
                    self.evictable()
                    return
            answer = self.ask("commit", upload=begun["upload"], hash=KEYS[index])
        else:
            answer = self.ask("put", data=data)
        self.evictable()
        if answer is not None and answer["ok"]:
            assert answer["hash"] == KEYS[index]
            self.here[index] = True
            self.damaged.discard(index)
        elif not self.here[index]:
            self.forget(index)

    @rule(index=which)
    def get(self, index: int) -> None:
        answer = self.ask("get", hash=KEYS[index], length=MAX_PIECE)
        if self.through:
            self.evictable()
        if answer is None:
            return
        if answer["ok"]:
            assert answer["data"] == POOL[index], "other bytes than its hash says"
            assert self.here[index] is not False or self.through, "came from nowhere"
            self.here[index] = True
            self.damaged.discard(index)
            return
        code = answer["error"]["code"]
        if index in self.damaged:
            self.here[index] = None
            return
        assert not self.here[index] or code in ("failed",), f"lost what was acknowledged: {answer['error']}"

    @rule(index=which)
    def delete(self, index: int) -> None:
        answer = self.ask("delete", hash=KEYS[index])
        if answer is not None and answer["ok"]:
            assert not self.pinned[index], "a pinned blob was deleted"
            self.here[index] = self.pinned[index] = False
            self.damaged.discard(index)
        elif answer is None or answer["error"]["code"] != "pinned":
            self.forget(index)
        else:
            assert self.pinned[index] is not False

    @rule(index=which)
    def pin(self, index: int) -> None:
        answer = self.ask("pin", hash=KEYS[index])
        if self.through:
            self.evictable()
        if answer is not None and answer["ok"]:
            assert self.here[index] is not False or self.through
            self.here[index] = self.pinned[index] = True
            self.damaged.discard(index)
        elif self.pinned[index] is False:
            self.pinned[index] = None
        if answer is not None and not answer["ok"] and index in self.damaged:
            self.here[index] = None

    @rule(index=which)
    def unpin(self, index: int) -> None:
        answer = self.ask("unpin", hash=KEYS[index])
        if answer is not None and answer["ok"]:
            if self.pinned[index] is not None:
                assert answer["unpinned"] is self.pinned[index]
            self.pinned[index] = False
        elif self.pinned[index]:
            self.pinned[index] = None
        self.evictable()

    @rule(index=which, wished=st.integers(1, 3))
    def replicas(self, index: int, wished: int) -> None:
        answer = self.ask("replicas", hash=KEYS[index], wished=wished)
        if answer is not None and answer["ok"]:
            assert (
                self.ask("replicas", hash=KEYS[index])
                in (
                    {"v": 1, "id": 1, "ok": True, "wished": wished},
                    None,
                )
                or self.disk.fail_at
            )

    @rule()
    def scrub(self) -> None:
        if self.ask("scrub", rate=2**40) is None:
            return
        storage = self.storage
        assert storage is not None
        died = False
        try:
            self.settle(lambda: not storage.details()["scrub"]["running"])
        except Died:
            died = True
        if died:
            del storage
            self.again()
        self.evictable()
        if self.disk.unreadable:
            self.disk.unreadable = False
            self.damaged.update(range(len(POOL)))
        for index in self.damaged:
            self.here[index] = None

    # -- what happens

    @rule(index=which)
    def rot(self, index: int) -> None:
        """A byte of the blob is another one from now on. Its times are as they are: that shows at the next start."""
        path = Path(self.disk.root, "cache" if self.cache else "blobs", KEYS[index].hex()[:2], KEYS[index].hex()[2:])
        if path.exists() and POOL[index]:
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)
            self.damaged.add(index)

    @rule(after=st.integers(0, 12))
    def die_soon(self, after: int) -> None:
        self.disk.die_at = after

    @rule(after=st.integers(0, 15), number=st.sampled_from(FAULTS))
    def fail_soon(self, after: int, number: int) -> None:
        self.disk.fail_at = (after, number)

    @rule()
    def restart(self) -> None:
        self.disk.quiet()
        assert self.storage is not None
        self.storage.close()
        self.start()

    @rule(after=st.integers(0, 10))
    def die_while_starting(self, after: int) -> None:
        self.disk.quiet()
        self._close_files()
        self.disk.die_at = after
        died = False
        try:
            self.start()
        except Died:
            died = True
        if died:
            self.again()

    @rule(after=st.integers(0, 10), number=st.sampled_from(FAULTS))
    def fail_while_starting(self, after: int, number: int) -> None:
        self.disk.quiet()
        self._close_files()
        self.disk.fail_at = (after, number)
        try:
            self.start()
        except StartError:
            self.again()

    @rule()
    def power_cut(self) -> None:
        """A cache may lose all but its pins; what was deleted or not acknowledged may be back."""
        for index, here in self.here.items():
            if not here or (self.cache and not self.pinned[index]):
                self.here[index] = None
        self.again(cut=True)

    @rule(mood=st.sampled_from(("off", "without", "honest", "lying")))
    def peers(self, mood: str) -> None:
        if self.through:
            assert self.storage is not None
            self.storage.peers.mood = mood

    # -- what holds

    @invariant()
    def pins_hold(self) -> None:
        if self.disk.fail_at or self.disk.die_at is not None:
            return
        told: dict[bytes, bool] = {}
        answer = self.ask("wishes")
        assert answer is not None
        for wish in answer["wishes"]:
            told[wish["hash"]] = wish["pinned"]
        for index, pinned in self.pinned.items():
            if pinned is None:
                self.pinned[index] = told.get(KEYS[index], False)
            else:
                assert told.get(KEYS[index], False) is pinned

    @invariant()
    def the_bound_holds(self) -> None:
        assert self.storage is not None
        if not self.cache:
            return
        details = self.storage.details()
        assert details["used"] <= LIMIT
        if self.disk.fail_at is None and self.disk.die_at is None:
            root = self.data / "cache"
            sizes = {path: path.stat().st_size for path in root.glob("??/*")}
            assert sum(map(cost, sizes.values())) == details["used"], sizes
            assert not list((root / "uploads").iterdir()) or details["uploads"] or details["fetches"]


StorageMachine.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStorage = StorageMachine.TestCase
