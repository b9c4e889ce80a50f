"""The second client beside a real full node, and beside one that lies: text and code say the same."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from edge_agent.services.client import Client as Local
from edge_agent.services.client import Node, Storage
from tests.node.bundled import Running, free_port
from tests.peer.client import Client, LieError, RefusalError
from tests.peer.ed25519 import verify

ROOT = Path(__file__).parent.parent.parent
STATUS: dict[str, Any] = {"node": "second", "release": "1", "every": 30}
BLOB = os.urandom(600_000)


def test_the_signatures_of_rfc_8032_hold() -> None:
    """Section 7.1, TEST 2 and TEST 3."""
    for key, message, commitment, scalar in (
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac",
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ):
        one, two, three = bytes.fromhex(key), bytes.fromhex(message), bytes.fromhex(commitment + scalar)
        assert verify(one, two, three)
        assert not verify(one, two + b"x", three)


class Ledger(Local):
    """The full node's ledger."""

    service = "ledger"


class World:
    """A full node with its ledger and storage, and what a client needs to know of it."""

    def __init__(self, base: Path) -> None:
        self.base, self.running = base, list[Running]()
        self.port = free_port()
        self.public, self.secret = (key.decode() for key in zmq.curve_keypair())
        self.start("ledger", record=False, origin="hub.example/log")
        with Ledger.local(str(base / "run/ledger")) as ledger:
            self.vkey = str(ledger.ask("key")["vkey"])
        self.append(*[b"entry %d" % number for number in range(11)])
        self.start("storage")
        with Storage.local(str(base / "run/storage"), timeout=20) as storage:
            self.blob = storage.put(BLOB)
        other = {"endpoint": "tcp://other.example:4001", "key": "o" * 40}
        p2p = {"mode": "full", "listen": f"tcp://127.0.0.1:{self.port}", "peers": [{"key": self.public}, other]}
        self.start("node", node_id="hub", p2p=p2p | {"logs": [self.vkey]})
        with Node.local(str(base / "run/node")) as node:
            self.key = node.key()

    def start(self, name: str, **options: Any) -> None:
        self.running.append(Running(name, self.base, **options).ready())

    def append(self, *entries: bytes) -> None:
        with Ledger.local(str(self.base / "run/ledger")) as ledger:
            ledger.ask("append", entries=list(entries))

    def client(self, **other: Any) -> Client:
        given = {"server": self.key, "secret": self.secret, "vkey": self.vkey} | other
        return Client(f"tcp://127.0.0.1:{self.port}", **given)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="ea-", dir="/tmp") as base:
        made = World(Path(base))
        yield made
        for running in made.running:
            running.__exit__(None, None, None)


def test_it_is_seen_and_its_status_arrives_as_differences(world: World) -> None:
    with world.client() as client, Node.local(str(world.base / "run/node")) as node:
        answer = client.beat(**STATUS)
        assert (answer["node"], set(answer)) == ("hub", {"v", "id", "news", "node", "release"})
        assert set(client.beat(**STATUS, memory=40)) == {"v", "id", "news"}
        client.beat(**STATUS, memory=45, profile="edge")
        client.beat(**STATUS, memory=45)
        seen = node.peers()["peers"][0]
        assert seen["status"] == {**STATUS, "memory": 45}
        assert (seen["state"], seen["version"]) == ("up", 2)


def test_heads_entries_and_blobs_are_proved(world: World) -> None:
    with world.client() as client:
        client.beat(**STATUS)
        size = client.head()
        assert size >= 11
        assert client.entries(3, 5) == [b"entry %d" % number for number in range(3, 8)]
        assert client.index(b"entry 10") == 10
        world.append(b"more", b"and more")
        promise = client.ask("submit", origin=client.origin, entry=b"mine")
        assert promise["size"] == size + 3
        client.beat(**STATUS)
        assert client.head() == size + 3
        assert client.index(b"mine") == promise["index"]
        assert client.ask("consistency", origin=client.origin, **{"from": 3, "to": size})["proof"]
        assert client.blob(world.blob) == BLOB
        assert client.blob(world.blob, 65_537) == BLOB
        assert client.ask("peers")["peers"] == [{"endpoint": "tcp://other.example:4001", "key": "o" * 40}]
        assert client.ask("announced")["evidence"] == []


def code(client: Client, op: str, **arguments: Any) -> str:
    with pytest.raises(RefusalError) as caught:
        client.ask(op, **arguments)
    return caught.value.code


def test_each_refusal_has_the_code_of_the_text(world: World) -> None:
    with world.client() as client:
        assert code(client, "peers") == "no-session"
        client.beat(**STATUS)
        assert code(client, "peers", number=1) == "replay"
        client._last = 10
        assert code(client, "dance") == "unknown-op"
        assert code(client, "blob", hash=b"short", offset=0, length=1) == "bad-request"
        assert code(client, "blob", hash=bytes(32), offset=0, length=1) == "not-found"
        assert code(client, "head", origin="nobody's") == "unknown-log"
        client.head()
        assert (
            code(client, "entries", origin=client.origin, size=client.size, start=client.size, most=1) == "bad-request"
        )
        assert code(client, "inclusion", origin=client.origin, size=client.size, hash=bytes(32)) == "not-found"
        assert code(client, "announce", evidence={"origin": client.origin, "kind": "fork"}) == "bad-request"
        told = msgpack.unpackb(client.raw(b"\xc1") or b"")
        assert (told["id"], told["error"]["code"]) == (0, "malformed")
        told = msgpack.unpackb(client.raw(msgpack.packb({"v": 3, "id": 99, "op": "beat"})) or b"")
        assert (told["id"], told["error"]["code"], told["error"]["speaks"]) == (99, "version", [2])
        client._timeout = 0.5
        assert client.raw([b"two", b"parts"]) is None
        client._timeout = 10.0
        client.ask("peers")  # and it goes on


def test_too_much_at_once_is_busy_and_soon_served_again(world: World) -> None:
    with world.client() as client:
        client.beat(**STATUS)
        codes = []
        for _ in range(120):
            try:
                client.ask("peers")
            except RefusalError as error:
                codes.append(error.code)
        assert set(codes) == {"busy"}
        time.sleep(1.0)
        client.ask("peers")


def test_a_beat_of_version_1_is_echoed(world: World) -> None:
    time.sleep(1.0)  # what an earlier test has asked for too fast is forgiven by then
    with world.client() as client:
        beat = {"v": 1, "kind": "beat", "node": "old", "release": "0.1.0", "sequence": 5, "interval": 30.0}
        echo = msgpack.unpackb(client.raw(msgpack.packb(beat)) or b"")
        assert {key: echo[key] for key in ("v", "kind", "node", "sequence")} == {
            "v": 1,
            "kind": "echo",
            "node": "hub",
            "sequence": 5,
        }


def test_a_key_that_is_no_members_gets_nothing(world: World) -> None:
    stranger = zmq.curve_keypair()[1].decode()
    with world.client(secret=stranger, timeout=1.0) as client, pytest.raises(TimeoutError):
        client.beat(**STATUS)


def look(client: Client, lie: str, digest: bytes) -> None:
    """Ask until it lies: the full node passes on what its ledger said up to 5 s ago."""
    for _ in range(100):
        client.head()
        if lie == "wrong-entry":
            client.entries(0, 2)
        if lie == "wrong-blob":
            client.blob(digest)
        time.sleep(0.1)


@pytest.mark.parametrize("lie", ["wrong-head", "rollback", "fork", "stale-proof", "wrong-entry", "wrong-blob"])
def test_it_sees_each_lie(lie: str) -> None:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    port = free_port()
    words = [sys.executable, "-m", "tests.node.liar", f"tcp://127.0.0.1:{port}", public]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        key, vkey, digest = process.stdout.readline().split()

        def order(line: str) -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            process.stdout.readline()

        with Client(f"tcp://127.0.0.1:{port}", key, secret, vkey) as client:
            client.beat(**STATUS)
            assert client.head() == 5
            assert client.entries(0, 2) == [b"entry 0", b"entry 1"]
            assert hashlib.sha256(client.blob(bytes.fromhex(digest))).hexdigest() == digest
            if lie in ("wrong-head", "stale-proof"):
                order("grow 3")
            order(lie)
            with pytest.raises(LieError, match=lie):
                look(client, lie, bytes.fromhex(digest))
        process.stdin.close()
        process.wait(10)
