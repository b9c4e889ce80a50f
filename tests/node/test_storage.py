"""The storage service as a real process: large blobs in little memory, kills, and blobs that come from peers."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.services.client import PIECE, ClientError, Storage
from tests.node.bundled import Running

BLOB = int(os.environ.get("EDGE_AGENT_TEST_BLOB", str(64 << 20)))  # bytes; 2147483648 for the claim of the page
KILLS = int(os.environ.get("EDGE_AGENT_TEST_KILLS", "6"))
PEAK = 32 * 1024 * 1024  # bytes of memory, whatever the size of a blob


@pytest.fixture
def base() -> Iterator[Path]:
    """A short directory: the path of a unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ea-", dir="/tmp") as directory:
        yield Path(directory)


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
    options = {"cache_only": True, "cache_bytes": BLOB + (1 << 20)} if mode == "cache" else {}
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
