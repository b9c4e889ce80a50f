"""One full node, two light ones and a liar as processes in network namespaces: what travels, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import tlog
from edge_agent.peers import transport
from edge_agent.services import keyfile
from edge_agent.services.client import Client, Identity, Node, ServiceError, Storage
from edge_agent.services.runtime import CURVE_KEY
from tests.node import netns
from tests.node.bundled import Running, until
from tests.node.liar import BLOB

pytestmark = pytest.mark.skipif(bool(netns.unavailable()), reason=netns.unavailable() or "-")

PORT, LIAR_PORT = 4001, 4002
PIECE = os.urandom(700_000)


class Ledger(Client):
    """The ledger of the full node."""

    service = "ledger"


class World:
    """The machines: ``hub`` with a full node, ledger, storage, and perhaps a liar; ``one`` and ``two`` are light."""

    def __init__(self, base: Path, net: netns.Net) -> None:
        self.base, self.net = base, net
        self.running: list[Running] = []
        self.keys = {name: self._key(name) for name in ("hub", "one", "two")}
        self.liar: subprocess.Popen[str] | None = None
        self.liar_key = self.liar_log = ""
        for name in ("ledger", "storage"):
            extra = {"record": False, "origin": "hub.example/log"} if name == "ledger" else {}
            self.start(name, "hub", **extra)
        with Ledger.local(str(base / "hub/run/ledger")) as ledger:
            self.vkey = str(ledger.ask("key")["vkey"])
            ledger.ask("append", entries=[b"entry %d" % number for number in range(20)])
        with Storage.local(str(base / "hub/run/storage"), timeout=20) as storage:
            self.blob = storage.put(PIECE)
            storage.put(BLOB)

    def start(self, service: str, place: str, **options: Any) -> Running:
        """A service of the machine ``place``; a node runs in its namespace."""
        before = self.net.inside(place) if service == "node" else ()
        self.running.append(Running(service, self.base / place, before=before, **options))
        return self.running[-1].ready()

    def _key(self, name: str) -> str:
        (self.base / name / "data/node").mkdir(parents=True, mode=0o700)
        path = str(self.base / name / "data/node/node.key")
        secret = keyfile.load_or_make(path, CURVE_KEY, 40, transport.new_secret, time.time())
        return transport.Key(secret.text).public

    def logs(self) -> list[str]:
        return [self.vkey, *([self.liar_log] if self.liar_log else [])]

    def full(self) -> Running:
        peers = [{"key": self.keys[name]} for name in ("one", "two")]
        p2p = {"mode": "full", "listen": f"tcp://0.0.0.0:{PORT}", "peers": peers, "logs": self.logs()}
        return self.start("node", "hub", node_id="hub", p2p=p2p)

    def light(self, name: str, heartbeat: float = 1.0, liar: bool = False) -> Running:
        address = self.net.address(name)
        peers = [{"endpoint": f"tcp://{address}:{PORT}", "key": self.keys["hub"]}]
        if liar:
            peers.insert(0, {"endpoint": f"tcp://{address}:{LIAR_PORT}", "key": self.liar_key})
        p2p = {"mode": "light", "peers": peers, "heartbeat": heartbeat, "logs": self.logs()}
        return self.start("node", name, node_id=name, p2p=p2p, status=str(self.base / "no-agent"))

    def start_liar(self) -> None:
        words = [sys.executable, "-m", "tests.node.liar", f"tcp://0.0.0.0:{LIAR_PORT}"]
        words += [self.keys["one"], self.keys["two"]]
        pipe = subprocess.PIPE
        self.liar = subprocess.Popen([*self.net.inside("hub"), *words], stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
        assert self.liar.stdout is not None
        self.liar_key, self.liar_log, _ = self.liar.stdout.readline().split()

    def order(self, words: str) -> None:
        assert self.liar is not None
        assert self.liar.stdin is not None
        assert self.liar.stdout is not None
        self.liar.stdin.write(words + "\n")
        self.liar.stdin.flush()
        assert self.liar.stdout.readline() == "ok\n"

    def append(self, *entries: bytes) -> None:
        with Ledger.local(str(self.base / "hub/run/ledger")) as ledger:
            ledger.ask("append", entries=list(entries))

    def node(self, name: str) -> Node:
        return Node.local(str(self.base / name / "run/node"), timeout=30)

    def peers(self, name: str) -> list[dict[str, Any]]:
        with self.node(name) as node:
            return list(node.peers()["peers"])

    def size(self, name: str, origin: str = "hub.example/log") -> int:
        with self.node(name) as node:
            return next(head["size"] or 0 for head in node.heads() if head["origin"] == origin)

    def refusals(self, name: str) -> list[str]:
        with self.node(name) as node:
            return [each["code"] for each in node.refused()["refused"]]

    def evidence(self, name: str) -> list[str]:
        with self.node(name) as node:
            return [each["kind"] for each in node.refused()["evidence"]]

    def close(self) -> None:
        for running in self.running:
            running.__exit__(None, None, None)
        if self.liar is not None:
            self.liar.kill()
            self.liar.communicate()


def fetched(node: Node) -> str:
    """What became of the blob that the liar has as well."""
    try:
        return "right" if node.fetch(hashlib.sha256(BLOB).digest()) == BLOB else "wrong"
    except ServiceError as error:
        return error.code


ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="ea-", dir="/tmp") as base, netns.Net("one", "two") as net:
        made = World(Path(base), net)
        yield made
        made.close()


def test_heads_entries_blobs_and_status_travel(world: World) -> None:
    world.full()
    for name in ("one", "two"):
        world.light(name)
    for name in ("one", "two"):
        until(lambda name=name: world.size(name) == 20, f"the head at {name}")  # type: ignore[misc]
        with world.node(name) as node:
            assert node.fetch(world.blob) == PIECE
            assert node.entries("hub.example/log", 3, 2) == [b"entry 3", b"entry 4"]
            assert node.includes("hub.example/log", tlog.leaf_hash(b"entry 7")) == (7, 20)
    with world.node("one") as node:
        assert node.submit("hub.example/log", b"from one") == (20, 21)
    until(lambda: world.size("two") == 21, "the entry of one at two")
    with world.node("two") as node:
        assert node.includes("hub.example/log", tlog.leaf_hash(b"from one")) == (20, 21)
        with pytest.raises(ServiceError) as caught:
            node.fetch(hashlib.sha256(b"never").digest())
        assert caught.value.code == "not-found"
    seen = {peer["node"]: peer for peer in world.peers("hub")}
    assert {name: seen[name]["state"] for name in ("one", "two")} == {"one": "up", "two": "up"}
    assert seen["one"]["status"]["every"] == 1
    kept = list((world.base / "one/data/node/heads").iterdir())
    assert [file.stat().st_size <= 1024 for file in kept] == [True]


def test_a_document_and_a_token_of_one_are_believed_at_two_and_not_with_another_pin(world: World) -> None:
    world.full()
    for name in ("one", "two"):
        world.light(name)
        world.start("identity", name, node_id=name)
        until(lambda name=name: world.size(name) == 20, "the head")  # type: ignore[misc]
    one, two = (Identity.local(str(world.base / name / "run/identity")) for name in ("one", "two"))
    with one, two, world.node("one") as node, world.node("two") as other:
        pinned = base64.b64decode(one.public()["ed25519"])
        token = one.token("two", subject="job", scope="read", nonce=two.challenge())
        for entry in (one.document(), token):
            node.submit("hub.example/log", entry.encode())
        until(lambda: world.size("two") == 22, "both at two")
        document, came = (entry.decode() for entry in other.entries("hub.example/log", 20, 2))
        with pytest.raises(ServiceError, match="does not lead from the pinned key"):
            two.check(came, "two", document, os.urandom(32))
        assert two.check(came, "two", document, pinned)["claims"]["subject"] == "job"
        assert two.check(came, "two", document, pinned)["code"] == "challenge"  # a replay


def test_a_killed_full_node_is_missed_and_found_again_and_what_is_known_stays(world: World) -> None:
    full = world.full()
    world.light("one")
    until(lambda: world.size("one") == 20, "the head")
    full.process.kill()
    full.process.wait()
    until(lambda: world.peers("one")[0]["state"] != "up", "the loss")
    assert world.size("one") == 20  # offline, from what is kept
    with world.node("one") as node, pytest.raises(ServiceError) as caught:
        node.fetch(world.blob)
    assert caught.value.code == "offline"
    world.append(b"meanwhile")
    world.full()
    until(lambda: world.size("one") == 21, "the head after the return")
    with world.node("one") as node:
        assert node.fetch(world.blob) == PIECE


def test_a_light_node_that_is_cut_off_comes_back_and_the_other_is_not_touched(world: World) -> None:
    world.full()
    for name in ("one", "two"):
        world.light(name)
        until(lambda name=name: world.size(name) == 20, "the head")  # type: ignore[misc]
    world.net.cut("one")
    until(lambda: world.peers("one")[0]["state"] != "up", "the cut seen by one")
    until(lambda: {peer["node"]: peer["state"] for peer in world.peers("hub")}["one"] == "down", "the cut seen by hub")
    assert world.peers("two")[0]["state"] == "up"
    world.append(b"meanwhile")
    until(lambda: world.size("two") == 21, "news at two")
    assert world.size("one") == 20
    world.net.mend("one")
    until(lambda: world.size("one") == 21, "news at one")


def test_a_slow_full_node_is_passed_over(world: World) -> None:
    world.start_liar()  # which is honest here
    full = world.full()
    world.light("one", heartbeat=30.0, liar=True)
    until(lambda: [peer["state"] for peer in world.peers("one")] == ["up", "up"], "both up")
    full.process.send_signal(signal.SIGSTOP)
    with world.node("one") as node:
        assert node.fetch(hashlib.sha256(BLOB).digest()) == BLOB
    full.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("lie", ["wrong-head", "stale-proof", "rollback", "fork", "replay", "garbage", "wrong-blob"])
def test_a_lie_is_seen_refused_and_the_other_peer_goes_on(world: World, lie: str) -> None:
    world.start_liar()
    world.full()
    world.light("one", liar=True)
    world.light("two")
    until(lambda: (world.size("one", "liar.example"), world.size("one")) == (5, 20), "both heads")
    world.order(lie)
    if lie in ("wrong-head", "stale-proof"):
        world.order("grow 3")
    if lie == "wrong-blob":
        with world.node("one") as node:
            first = [fetched(node) for _ in range(2)]  # perhaps hub is the better one
            assert set(first) <= {"right", "wrong-blob"}
            assert node.fetch(hashlib.sha256(BLOB).digest()) == BLOB
    else:
        code = "malformed" if lie == "garbage" else lie
        until(lambda: code in world.refusals("one"), f"{lie} refused")
    assert world.size("one", "liar.example") == 5
    if lie in ("rollback", "fork"):
        assert lie in world.evidence("one")
        until(lambda: lie in world.evidence("hub"), "the evidence at hub")
    if lie == "fork":
        until(lambda: "fork" in world.evidence("two"), "the evidence at two, which never met the liar")
    liar, hub = world.peers("one")
    assert liar["state"] == ("up" if lie in ("rollback", "fork") else liar["state"])
    assert liar["refused"] >= 1 or lie == "wrong-blob"
    assert (hub["state"], hub["refused"]) == ("up", 0)
    world.append(b"on")
    until(lambda: world.size("one") == 21, "the honest log goes on")
    with world.node("one") as node:
        assert node.fetch(world.blob) == PIECE


def test_a_kill_and_a_restart_do_not_make_it_forget(world: World) -> None:
    world.start_liar()
    light = world.light("one", liar=True)
    until(lambda: world.size("one", "liar.example") == 5, "the head")
    light.process.kill()
    light.process.wait()
    world.order("rollback")
    light = world.light("one", liar=True)
    assert world.size("one", "liar.example") == 5
    until(lambda: "rollback" in world.refusals("one"), "the rollback refused")
    light.stop(signal.SIGKILL)
    world.light("one", liar=True)
    assert world.evidence("one") == ["rollback"]


def test_an_unknown_key_and_a_key_taken_off_the_list_get_nothing(world: World) -> None:
    members = world.base / "members"
    members.write_text(f"# light nodes\n{world.keys['one']} one\n")
    p2p = {"mode": "full", "listen": f"tcp://0.0.0.0:{PORT}", "members": str(members)}
    world.start("node", "hub", node_id="hub", p2p=p2p)
    for name in ("one", "two"):
        world.light(name)
    until(lambda: world.peers("one")[0]["state"] == "up", "one up")
    assert world.peers("two")[0]["state"] != "up"
    members.write_text(f"{world.keys['two']} two\n")
    until(lambda: world.peers("two")[0]["state"] == "up", "two up")
    until(lambda: world.peers("one")[0]["state"] != "up", "one gone")
    assert [peer["node"] for peer in world.peers("hub")] == ["two"]


def test_an_idle_light_node_needs_less_than_a_kilobyte_a_minute(world: World) -> None:
    """Counted on the link, with the headers of TCP, IP and Ethernet: three peers at the default of 60 s."""
    world.full()
    world.light("one", heartbeat=1.0)
    until(lambda: world.size("one") == 20, "the head")
    time.sleep(3)
    with world.node("hub") as node:
        beats = node.peers()["counts"]["beat"]
        before = world.net.octets("one")
    time.sleep(20)
    with world.node("hub") as node:
        beats = node.peers()["counts"]["beat"] - beats
        octets = world.net.octets("one") - before
    assert beats >= 15
    each = octets / beats
    assert each * 3 <= 1024, f"{each:.0f} bytes a beat"
