"""The ledger as a real process: killed while it appends, over the wire, and beside a real agent."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from edge_agent import tlog
from edge_agent.notes import Checkpoint, Verifier, open_checkpoint
from edge_agent.peers import transport
from edge_agent.services.client import ClientError, Ledger, ServiceError, TimedOutError
from edge_agent.services.tiles import path, split, unpack

from .bundled import Running, free_port
from .harness import Node, until


def started(base: Path, **options: Any) -> Running:
    return Running("ledger", base, **{"record": False, **options}).ready()


def everything(client: Ledger) -> list[bytes]:
    found: list[bytes] = []
    while piece := client.entries(len(found)):
        found += piece
    return found


def served(log: Path, verifier: Verifier) -> tuple[Checkpoint, list[bytes]]:
    """The log as its files have it, read as C2SP tlog-tiles say."""
    head = open_checkpoint((log / "checkpoint").read_bytes(), [verifier])
    hashes: list[bytes] = []
    entries: list[bytes] = []
    for number in range(-(-head.size // 256)):
        width = min(256, head.size - 256 * number)
        for level, into in ((0, hashes), ("entries", entries)):
            full = log / path(level, number)
            data = (full if full.exists() else log / path(level, number, width)).read_bytes()
            into += (split(data, len(data) // 32) if level == 0 else list(unpack(data)))[:width]
    assert tlog.root(hashes) == head.root
    assert [tlog.leaf_hash(entry) for entry in entries] == hashes
    return head, entries


def test_a_kill_at_random_moments_loses_nothing_acknowledged(base: Path) -> None:
    chance = random.Random(5)
    acknowledged: dict[int, bytes] = {}
    heads: list[Checkpoint] = []
    verifier: Verifier | None = None
    for life in range(8):
        with started(base) as service:
            killer = threading.Timer(0.1 + 0.9 * chance.random(), service.process.kill)
            with Ledger.local(str(service.run), timeout=2.0) as client:
                verifier = Verifier.parse(client.vkey())
                new = open_checkpoint(client.head(), [verifier])
                for old in heads:
                    proof = client.consistency(old.size, new.size)
                    tlog.verify_consistency(old.size, new.size, proof, old.root, new.root)
                killer.start()
                try:
                    while True:
                        entries = [b"%d %d" % (life, chance.randrange(10**9))] * chance.choice((1, 1, 1, 40, 700))
                        first, size = client.append(*entries)
                        acknowledged |= {first + number: entry for number, entry in enumerate(entries)}
                        heads = [*heads[-3:], open_checkpoint(client.head(), [verifier])]
                        assert heads[-1].size >= size
                except ClientError:
                    service.process.wait()
            killer.cancel()
            served(service.data / "log", verifier)
    assert verifier is not None
    with started(base) as service, Ledger.local(str(service.run)) as client:
        found = everything(client)
        assert all(found[index] == entry for index, entry in acknowledged.items())
        assert len(acknowledged) > 100
        head = open_checkpoint(client.head(), [verifier])
        assert head.root == tlog.root([tlog.leaf_hash(entry) for entry in found])
        assert service.stop() == 0
        assert served(service.data / "log", verifier) == (head, found)


def test_appends_of_many_clients_share_their_flushes(base: Path) -> None:
    with started(base) as service:
        places: list[int] = []

        def append(number: int) -> None:
            with Ledger.local(str(service.run), timeout=20.0) as client:
                places.extend(client.append(b"%d-%d" % (number, turn))[0] for turn in range(25))

        threads = [threading.Thread(target=append, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with Ledger.local(str(service.run)) as client:
            assert sorted(places) == list(range(200))
            assert client.health()["batches"] < 200


def test_over_the_wire_only_known_keys_append(base: Path) -> None:
    port, known, stranger = free_port(), transport.Key(transport.new_secret()), transport.Key(transport.new_secret())
    with started(base, port=port, clients=[known.public]) as service:
        own = transport.Key((service.data / "curve.key").read_text().split()[1]).public
        with Ledger(f"tcp://127.0.0.1:{port}", (known, own)) as client:
            assert client.append(b"hello") == (0, 1)
            head = open_checkpoint(client.head(), [Verifier.parse(client.vkey())])
            leaf, index, proof = client.inclusion(tlog.leaf_hash(b"hello"), head.size)
            tlog.verify_inclusion(leaf, index, head.size, proof, head.root)
            with pytest.raises(ServiceError) as refused:
                client.inclusion(5, head.size)
            assert refused.value.code == "not-found"
        with Ledger(f"tcp://127.0.0.1:{port}", (stranger, own), timeout=1.0) as client, pytest.raises(TimedOutError):
            client.append(b"let me in")


def test_at_rest_it_does_not_wake_up(base: Path) -> None:
    with started(base) as service, Ledger.local(str(service.run)) as client:
        client.append(b"something")
        files = service.data / "log/checkpoint"
        until(lambda: files.read_bytes() == client.head(), "the files follow")
        time.sleep(1.0)  # what the kernel and libzmq have left to do
        before = service.switches()
        time.sleep(3.0)
        assert service.switches() - before <= 1


# -- beside an agent

PROFILE = """
    services:
      ledger: {{}}
      web: {{command: [/bin/sleep, '1000'], restart_policy: {{delay: 100ms}}, importance: {importance}}}
"""


def recorded(node: Node) -> list[dict[str, Any]]:
    with Ledger.local(str(node.run_dir / "bundled/ledger")) as client:
        return [json.loads(entry) for entry in everything(client)]


def test_what_the_agent_does_is_recorded(node: Node) -> None:
    first, second = (node.profile(PROFILE.format(importance=each), f"of-{each}") for each in (40, 60))
    node.start("--config", first)
    node.until_state("ready", "ledger", "web")
    plan = until(
        lambda: [each for each in recorded(node) if each["edge-agent"] == "profile"], "the profile is recorded"
    )
    assert plan[0]["name"] == "of-40"
    assert plan[0]["sha256"] == sha256((node.data_dir / "plan").read_bytes()).hexdigest()

    pid = node.pids()["web"]
    os.kill(pid, signal.SIGKILL)
    exits = until(lambda: [each for each in recorded(node) if each.get("kind") == "exit"], "the exit is recorded")
    assert exits[0]["service"] == "web"
    node.cli("--config", second, check=True)
    until(lambda: {"of-40", "of-60"} <= {each.get("name") for each in recorded(node)}, "the switch is recorded")

    before = recorded(node)
    assert node.process is not None
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.wait()
    node.start("--config", second)
    node.until_state("ready", "ledger", "web")
    os.kill(node.pids()["web"], signal.SIGKILL)
    after = until(lambda: later(before, recorded(node)), "events of the next agent are recorded")
    assert after[: len(before)] == before
    told = [(each["seq"], each["time"]) for each in after if each["edge-agent"] == "event"]
    assert len(told) == len(set(told)), "nothing twice"


def later(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is recorded now, once there is something new of the agent."""
    return now if any(each.get("kind") == "exit" for each in now[len(before) :]) else []
