"""Mutated and random notes, keys, proofs, bundles and journals: nothing but the one declared error of each.

``EDGE_AGENT_FUZZ_EXAMPLES`` raises the number of examples for a long run; each is made by its number alone.
"""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from edge_agent import tlog
from edge_agent.notes import COSIGNATURE, Checkpoint, Note, NoteError, Signer, Verifier, open_checkpoint, parse
from edge_agent.services.errors import StartError
from edge_agent.services.tiles import TileError, pack, split, unpack
from edge_agent.services.tilestore import Batch, Store

T = TypeVar("T")
EXAMPLES = int(os.environ.get("EDGE_AGENT_FUZZ_EXAMPLES", "2000"))

LOG, WITNESS = Signer("example.com/log", bytes(32)), Signer("witness", bytes((1,)) * 32, COSIGNATURE)
TEXT = Checkpoint("example.com/log", 20852163, bytes(range(32)), ("extended",)).text()
SIGNED = LOG.sign(TEXT)
COSIGNED = Note(TEXT, (*parse(SIGNED).signatures, WITNESS.cosign(parse(SIGNED), 1679315147))).encode()
PIECES = (
    b"\n",
    b"\n\n",
    "\u2014 ".encode(),
    b" ",
    b"+",
    b"=",
    b"\x00",
    b"\xff",
    b"\r\n",
    SIGNED,
    TEXT.encode(),
    b"A" * 92,
)


def chances(count: int = EXAMPLES) -> Iterator[random.Random]:
    for number in range(count):
        yield random.Random(number)


def mutated(chance: random.Random, seed: bytes) -> bytes:
    data = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[at : at + chance.randint(1, 20)]
        elif kind == 2:
            data[at:at] = chance.choice(PIECES)
        elif kind == 3:
            data[at:at] = data[at : at + chance.randint(1, 100)]
        else:
            data[at : at + 1] = chance.randbytes(chance.randint(1, 8))
    return bytes(data)


def allowed(error: type[Exception], call: Callable[..., T], *given: object) -> T | None:
    """What the call returns; None when it raises the error that it declares."""
    try:
        return call(*given)
    except error:
        return None


def test_notes() -> None:
    known, witnesses = [LOG.verifier], [WITNESS.verifier]
    for chance in chances():
        seed = chance.choice((SIGNED, COSIGNED))
        data = mutated(chance, seed) if chance.random() < 0.8 else chance.randbytes(chance.randrange(300)) + seed
        note = allowed(NoteError, parse, data)
        if note is not None:
            assert note.encode() == data
        found = allowed(NoteError, open_checkpoint, data, known, witnesses, 1)
        assert found is None or found.text() == TEXT, "what is believed is what was signed"


def test_keys() -> None:
    for chance in chances():
        text = mutated(chance, chance.choice((LOG, WITNESS)).verifier.vkey().encode()).decode("latin-1")
        found = allowed(NoteError, Verifier.parse, text)
        assert found is None or Verifier.parse(found.vkey()) == found


LEAVES = [tlog.leaf_hash(bytes((number,))) for number in range(70)]
STRANGE: tuple[object, ...] = (
    None,
    -1,
    2**64,
    2**64 - 1,
    1.0,
    True,
    "x",
    b"",
    bytes(31),
    bytes(33),
    [],
    {},
    [bytes(32)] * 200,
)


def test_proofs() -> None:
    for chance in chances():
        size = chance.randint(1, 70)
        index, root = chance.randrange(size), tlog.root(LEAVES[:size])
        inclusion: list[object] = [LEAVES[index], index, size, tlog.inclusion_proof(LEAVES[:size], index), root]
        first = index + 1
        proof = tlog.consistency_proof(LEAVES[:size], first)
        consistency: list[object] = [first, size, proof, tlog.root(LEAVES[:first]), root]
        for given, call in ((inclusion, tlog.verify_inclusion), (consistency, tlog.verify_consistency)):
            call(*given)  # type: ignore[arg-type]
            for _ in range(chance.randint(1, 3)):
                given[chance.randrange(5)] = chance.choice((*STRANGE, *given, chance.randbytes(32)))
            allowed(tlog.ProofError, call, *given)


def test_bundles_and_tiles() -> None:
    for chance in chances():
        entries = [chance.randbytes(chance.randrange(40)) for _ in range(chance.randrange(20))]
        data = mutated(chance, b"".join(map(pack, entries)))
        found = allowed(TileError, lambda given: list(unpack(given)), data)
        assert found is None or b"".join(map(pack, found)) == data
        allowed(TileError, split, data, chance.randrange(5))


def opened(store: Store) -> bool:
    store.open()
    return True


def test_journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutated journal is refused, or is the journal of a beginning of the log."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda _descriptor: None)
    store = Store(str(tmp_path))
    store.open()
    wanted = [b"entry %d" % number for number in range(40)]
    for start in range(0, 40, 10):
        store.append(Batch.of(wanted[start : start + 10]))
    store.close()
    journal = tmp_path / "journal"
    whole = journal.read_bytes()
    for chance in chances(EXAMPLES // 10):
        journal.write_bytes(mutated(chance, whole))
        again = Store(str(tmp_path))
        if allowed(StartError, opened, again):
            found = list(again.entries(0, 1000, 10**6))
            assert found == wanted[: len(found)]
        again.close()


def test_what_it_costs_to_refuse() -> None:
    worst = [
        SIGNED[:-1] * 10_000,
        ("\u2014 a AAAAAAA=\n" * 9000).encode(),
        b"\n" * 131_072,
        TEXT.encode() + b"\n" + ("\u2014 " + "x" * 120_000 + " AAAAAAA=\n").encode(),
    ]
    tracemalloc.start()
    try:
        for data in worst:
            tracemalloc.reset_peak()
            allowed(NoteError, parse, data)
            assert tracemalloc.get_traced_memory()[1] < 4 * len(data) + 2**21
    finally:
        tracemalloc.stop()
