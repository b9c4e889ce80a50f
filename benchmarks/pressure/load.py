"""The three services, one program: ``python3 -S load.py essential|worker|hog DIRECTORY``. Nothing but the library.

essential answers HTTP requests: each touches memory and reads a record, every tenth stores one and waits for the disk.
worker works as fast as it is let, and counts what it has done.
hog does what DIRECTORY/phase says, 'ID KIND'; what it had begun before it was ended it does not begin again.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

PORT = 8080
MIB = 1 << 20
WORKING_SET = 16 * MIB
RECORDS = 16 * MIB
PAGE = 4096
WORKERS = 2
LEAK = 16 * MIB  # bytes a second


def essential(directory: str) -> None:
    """One request at a time."""
    memory = bytearray(os.urandom(MIB) * (WORKING_SET // MIB))
    fd = os.open(f"{directory}/disk/records", os.O_RDWR | os.O_CREAT, 0o644)
    for offset in range(0, RECORDS, MIB):
        os.pwrite(fd, memory[:MIB], offset)
    os.fsync(fd)
    listener = socket.create_server(("127.0.0.1", PORT), backlog=256)
    number = 0
    while True:
        connection, _ = listener.accept()
        with contextlib.suppress(OSError), connection:
            connection.recv(1024)
            number += 1
            for _ in range(32):
                memory[random.randrange(0, WORKING_SET, PAGE)] ^= 1  # noqa: S311 no secret
            record = os.pread(fd, PAGE, random.randrange(0, RECORDS, PAGE))  # noqa: S311
            if number % 10 == 0:
                os.pwrite(fd, record, random.randrange(0, RECORDS, PAGE))  # noqa: S311
                os.fdatasync(fd)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")


def worker(directory: str) -> None:
    """One process for each of two processors; what each has done is 8 bytes of DIRECTORY/work."""
    fd = os.open(f"{directory}/work", os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(fd, PAGE)
    count = mmap.mmap(fd, PAGE)
    memory = bytearray(os.urandom(MIB) * 16)
    place = 8 * (os.fork() == 0)
    done = int.from_bytes(count[place : place + 8], "little")  # it goes on counting when it was started again
    while True:
        start = (done * MIB // 4) % len(memory)
        memory[start] ^= 1
        hashlib.sha256(memory[start : start + MIB // 4]).digest()
        done += 1
        count[place : place + 8] = done.to_bytes(8, "little")


def _grow(rate: float) -> None:
    """Take memory, ``rate`` bytes a second, and use all of it all the time."""
    block, ones, taken, began = os.urandom(MIB), bytes(MIB // PAGE), [], time.monotonic()
    while True:
        taken.append(bytearray(block))
        while len(taken) * MIB > (time.monotonic() - began) * rate:
            for piece in taken:
                piece[::PAGE] = ones
            time.sleep(0.01)


def _fork(count: int) -> None:
    for _ in range(count - 1):
        if os.fork() == 0:
            return


def _spin() -> None:
    _fork(4)
    while True:
        pass


def _write(directory: str) -> None:
    _fork(2)
    fd = os.open(f"{directory}/flood.{os.getpid()}", os.O_RDWR | os.O_CREAT, 0o644)
    block = os.urandom(MIB)
    while True:
        for offset in range(0, 32 * MIB, MIB):
            os.pwrite(fd, block, offset)
        os.fdatasync(fd)


def hog(directory: str) -> None:
    """A child does it, so that the end of a phase ends it; the child's memory counts for the service all the same."""
    child, running = 0, ""
    while True:
        ident, _, kind = Path(f"{directory}/phase").read_text().partition(" ")
        if ident != running:
            running = ident
            if child:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                child = 0
            with Path(f"{directory}/begun").open("a+") as file:
                file.seek(0)
                begun = file.read().split()
                file.write(f"{ident}\n")
            if kind and ident not in begun:
                child = os.fork()
                if not child:
                    os.setpgid(0, 0)
                    _do(kind, directory)
        time.sleep(0.05)


def _do(kind: str, directory: str) -> None:
    if kind == "leak":
        _grow(LEAK)
    elif kind == "memory":
        _grow(float("inf"))
    elif kind == "cpu":
        _spin()
    else:
        _write(directory + "/disk")


if __name__ == "__main__":
    {"essential": essential, "worker": worker, "hog": hog}[sys.argv[1]](sys.argv[2])
