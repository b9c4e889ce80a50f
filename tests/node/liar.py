"""A full node of the test's: it speaks the protocol, serves a log of its own making, and lies when told to.

    python -m tests.node.liar ENDPOINT KEY-OF-A-LIGHT-NODE...      prints its CURVE key, its log's key and a blob's hash

Each line on standard input is an order, and is answered with "ok":

    grow N | honest | wrong-head | fork | rollback | stale-proof | wrong-entry | wrong-blob | replay | silent | garbage
"""

from __future__ import annotations

import sys
import time

import msgpack
import zmq

from edge_agent.peers import transport
from edge_agent.peers.frames import MAX_REQUEST
from tests.fakes.link import FullSide
from tests.fakes.logs import FakeBlobs, FakeLog, Machine

BLOB = bytes(range(256)) * 2000


class Liar:
    """The node and its lies."""

    def __init__(self, keys: list[str]) -> None:
        self.log = FakeLog("liar.example", seed=7, entries=5)
        self.side = FullSide("liar", Machine(self.log, FakeBlobs(BLOB)), keys, [self.log.verifier])
        self.side.meddle = self.meddle
        self.lie = "honest"
        self.last = b""

    def order(self, words: list[str]) -> None:
        if words[0] == "grow":
            self.log.grow(int(words[1]))
            return
        self.lie = words[0]
        machine = self.side.machine
        machine.log = self.log
        if self.lie == "rollback":
            machine.log = self.log.fork(len(self.log.entries) - 2)
        if self.lie == "fork":
            machine.log = self.log.fork(2).grow(len(self.log.entries) - 2, b"other")

    def meddle(self, frame: bytes) -> bytes | None:
        message, last = msgpack.unpackb(frame), self.last
        self.last = frame
        if self.lie == "silent":
            return None
        if self.lie == "garbage":
            return b"\xc1" + frame
        if self.lie == "replay":
            return last
        if self.lie == "wrong-head" and "note" in message:
            message["note"] = FakeLog("liar.example", seed=8, entries=9).note()
        elif self.lie == "stale-proof" and "note" in message:
            message["proof"] = [bytes(32)] * 3
        elif self.lie == "wrong-entry" and "entries" in message:
            message["entries"][0] += b"!"
        elif self.lie == "wrong-blob" and "data" in message:
            message["data"] = bytes(len(message["data"]))
        packed: bytes = msgpack.packb(message)
        return packed


def main(endpoint: str, keys: list[str]) -> None:
    context = transport.context()
    gate = transport.Gate(context)
    key = transport.Key(transport.new_secret())
    liar = Liar(keys)
    socket = transport.listen_curve(context, gate, endpoint, key, frozenset(keys), "liar", MAX_REQUEST)
    digest = next(iter(liar.side.machine.blobs.blobs)).hex()
    sys.stdout.write(f"{key.public} {liar.log.verifier.vkey()} {digest}\n")
    sys.stdout.flush()
    poller = zmq.Poller()
    for each in (socket, gate.socket, sys.stdin.fileno()):
        poller.register(each, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        gate.serve()
        if sys.stdin.fileno() in ready:
            words = sys.stdin.readline().split()
            if not words:
                return
            liar.order(words)
            sys.stdout.write("ok\n")
            sys.stdout.flush()
        for parts in transport.drain(socket, 64, 2):
            route, data = parts[0].bytes, parts[1].bytes
            for frame in liar.side.hear(transport.user(parts[1]), route, data, time.monotonic()):
                transport.send(socket, [route, frame])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
