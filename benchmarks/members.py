"""Many light clients on one full node, over loopback: ``python -m benchmarks.members``.

What is measured is in README.md. The clients are sockets of a few processes that speak the protocol of
edge_agent/peers/PROTOCOL.md: a first beat each, then differences, one after the other in rounds. The full node is the
service as it is shipped; it is asked for nothing but beats.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgpack
import zmq

from .processes import parse_rollup

RESULTS = Path(__file__).parent / "results"
EACH = 500  # clients of one process
KNOCKING = 50  # handshakes at once: a process waits for those before it begins others
PATIENCE = 120.0  # seconds for an answer; whoever waits longer has failed
PORT = 43117
SERVICE_OPTIONS = "EDGE_AGENT_SERVICE_OPTIONS"


def memory(pid: int) -> int:
    """PSS, bytes."""
    return parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())["Pss"]


def cpu(pid: int) -> float:
    """Seconds on a processor, all threads, by the scheduler's clock."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


class Clients:
    """Some of the light clients: one socket each, in this process."""

    def __init__(self, secrets: Sequence[tuple[bytes, bytes]], server: bytes, first: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, 2 * len(secrets) + 64)
        self._keys, self._server, self._first = secrets, server, first
        self._sockets: list[zmq.Socket[bytes]] = []
        self._last = 0

    def connect(self) -> None:
        """All of them, each with its first beat. RuntimeError when one is not answered."""
        self._last = 1
        for start in range(0, len(self._keys), KNOCKING):
            fresh = [self._socket(public, secret) for public, secret in self._keys[start : start + KNOCKING]]
            for number, socket in enumerate(fresh, self._first + start):
                status = {"node": f"n{number}", "release": "1", "every": 3600, "profile": "edge", "up": 3, "of": 3}
                self._send(socket, {"op": "beat", "set": status | {"memory": 40, "cpu": 10}})
            self._answers(fresh)
            self._sockets += fresh

    def update(self, value: int) -> None:
        """Each tells a difference, and is answered."""
        base, self._last = self._last, self._last + 1
        for start in range(0, len(self._sockets), KNOCKING):
            batch = self._sockets[start : start + KNOCKING]
            for socket in batch:
                self._send(socket, {"op": "beat", "base": base, "set": {"memory": value}})
            self._answers(batch)

    def close(self) -> None:
        """End every connection."""
        self._context.destroy(linger=0)

    def _socket(self, public: bytes, secret: bytes) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.set_hwm(10)
        socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = self._server, public, secret
        socket.connect(f"tcp://127.0.0.1:{PORT}")
        return socket

    def _send(self, socket: zmq.Socket[bytes], frame: dict[str, Any]) -> None:
        socket.send(msgpack.packb({"v": 2, "id": self._last, **frame}))

    def _answers(self, sockets: Sequence[zmq.Socket[bytes]]) -> None:
        deadline = time.monotonic() + PATIENCE
        for socket in sockets:
            if not socket.poll(max(0, int(1000 * (deadline - time.monotonic())))):
                raise RuntimeError(f"cannot go on: no answer in {PATIENCE:g} s")
            answer = msgpack.unpackb(socket.recv())
            if "news" not in answer or "again" in answer:
                raise RuntimeError(f"cannot go on: the node answered {answer}")


def work(pipe: Connection, secrets: Sequence[tuple[bytes, bytes]], server: bytes, first: int) -> None:
    """A process of clients, told what to do through ``pipe``; it ends with the other end."""
    clients = Clients(secrets, server, first)
    try:
        while True:
            what, value = pipe.recv()
            if what == "connect":
                clients.connect()
            else:
                clients.update(value)
            pipe.send("")
    except EOFError:
        pass
    except (RuntimeError, zmq.ZMQError) as error:
        pipe.send(str(error))
    finally:
        clients.close()


@contextmanager
def full_node(members: Sequence[bytes], directory: Path) -> Iterator[tuple[int, bytes]]:
    """A full node that lets ``members`` in: its pid and its CURVE key."""
    (directory / "members").write_bytes(b"\n".join(members) + b"\n")
    told = {
        "data_dir": str(directory / "data"),
        "run_dir": str(directory / "run"),
        "p2p": {"mode": "full", "listen": f"tcp://127.0.0.1:{PORT}", "members": str(directory / "members")},
    }
    argv = [sys.executable, "-m", "edge_agent.services", "node"]
    process = subprocess.Popen(argv, env=os.environ | {SERVICE_OPTIONS: json.dumps(told)}, stderr=subprocess.DEVNULL)
    try:
        yield process.pid, _key_of(directory)
    finally:
        process.terminate()
        process.wait()


def _key_of(directory: Path) -> bytes:
    from edge_agent.services import client

    deadline = time.monotonic() + 60
    while True:
        try:
            with client.Node.local(str(directory / "run")) as node:
                return node.key().encode()
        except client.ClientError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def measure(count: int, rounds: int) -> dict[str, float]:
    """``count`` clients on a node of their own. RuntimeError when one is not served."""
    pairs = [zmq.curve_keypair() for _ in range(count)]
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="members.") as made:
        directory = Path(made)
        with full_node([public for public, _ in pairs], directory) as (pid, key):
            empty = memory(pid)
            pipes, processes = [], []
            for first in range(0, count, EACH):
                ours, theirs = context.Pipe()
                process = context.Process(target=work, args=(theirs, pairs[first : first + EACH], key, first))
                process.start()
                theirs.close()
                pipes.append(ours)
                processes.append(process)
            try:
                before, begun = cpu(pid), time.monotonic()
                _all(pipes, ("connect", 0))
                took, spent = time.monotonic() - begun, cpu(pid) - before
                connected = memory(pid)
                costs, rates = [], []
                for value in range(rounds):
                    before, begun = cpu(pid), time.monotonic()
                    _all(pipes, ("update", 41 + value))
                    costs.append((cpu(pid) - before) / count)
                    rates.append(count / (time.monotonic() - begun))
                after = memory(pid)
            finally:
                for pipe in pipes:
                    pipe.close()
                for process in processes:
                    process.join()
    return {
        "clients": count,
        "pss_empty": empty,
        "pss_connected": connected,
        "pss_after": after,
        "bytes_per_client": (max(connected, after) - empty) / count,
        "handshake_cpu_s": spent / count,
        "handshakes_per_s": count / took,
        "update_cpu_s": statistics.median(costs),
        "updates_per_s": statistics.median(rates),
    }


def _all(pipes: Sequence[Connection], what: tuple[str, int]) -> None:
    """Have every process do it, side by side. RuntimeError when one cannot."""
    for pipe in pipes:
        pipe.send(what)
    for pipe in pipes:
        failed = pipe.recv()
        if failed:
            raise RuntimeError(failed)


def table(rows: Sequence[dict[str, float]]) -> str:
    """For people, Markdown."""
    lines = [
        "| clients | PSS of the node, MiB | each, KB | handshake, ms of CPU | update, µs of CPU | updates a second |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['clients']:,.0f} | {row['pss_after'] / 2**20:.1f} | {row['bytes_per_client'] / 1e3:.1f} "
        f"| {1e3 * row['handshake_cpu_s']:.2f} | {1e6 * row['update_cpu_s']:.0f} | {row['updates_per_s']:,.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.members", description=__doc__.splitlines()[0])
    parser.add_argument("counts", nargs="*", type=int, default=[100, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=3, help="updates of each client (3)")
    parser.add_argument("--keep", action="store_true", help="write results/DATE-members.json")
    options = parser.parse_args(arguments)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    before = os.getloadavg()
    rows = [measure(count, options.rounds) for count in options.counts]
    print(table(rows))
    print(f"load average {before[0]:.1f} before, {os.getloadavg()[0]:.1f} after, {os.cpu_count()} processors")
    if options.keep:
        written = {"rows": rows, "load": [before, os.getloadavg()], "processors": os.cpu_count()}
        (RESULTS / f"{datetime.date.today()}-members.json").write_text(json.dumps(written, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
