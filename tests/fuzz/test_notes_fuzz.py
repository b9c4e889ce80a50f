"""Mutated and random notes, keys and proofs: nothing but the one declared error of each.

``EDGE_AGENT_FUZZ_EXAMPLES`` raises the number of examples for a long run.
"""

from __future__ import annotations

import contextlib
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.notes import COSIGNATURE, Checkpoint, Note, NoteError, Signer, Verifier, open_checkpoint, parse
from tests.fuzz.test_wire_fuzz import EDIT, mutate

EXAMPLES = int(os.environ.get("EDGE_AGENT_FUZZ_EXAMPLES", "400"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

LOG, WITNESS = Signer("example.com/log", bytes(32)), Signer("witness", bytes((1,)) * 32, COSIGNATURE)
TEXT = Checkpoint("example.com/log", 20852163, bytes(range(32)), ("extended",)).text()
SIGNED = LOG.sign(TEXT)
COSIGNED = Note(TEXT, (*parse(SIGNED).signatures, WITNESS.cosign(parse(SIGNED), 1679315147))).encode()


def consume(data: bytes) -> None:
    """What a reader does with bytes it cannot trust; what it then believes is what was signed."""
    with contextlib.suppress(NoteError):
        found = open_checkpoint(data, [LOG.verifier], [WITNESS.verifier], 1)
        assert found.text() == TEXT
        assert parse(data).encode() == data


@fuzz
@given(st.sampled_from([SIGNED, COSIGNED]), st.lists(EDIT, max_size=8))
def test_mutated_notes(seed: bytes, edits: list[tuple[str, int, int]]) -> None:
    consume(mutate(seed, edits))


@fuzz
@given(st.one_of(st.binary(max_size=500), st.text(alphabet="—\n +=ab0A/\u2003", max_size=200).map(str.encode)))
def test_random_notes(data: bytes) -> None:
    consume(data)
    consume(data + b"\n" + SIGNED)


@fuzz
@given(st.sampled_from([LOG, WITNESS]), st.lists(EDIT, max_size=4))
def test_mutated_keys(signer: Signer, edits: list[tuple[str, int, int]]) -> None:
    vkey = mutate(signer.verifier.vkey().encode(), edits).decode("latin-1")
    with contextlib.suppress(NoteError):
        found = Verifier.parse(vkey)
        assert Verifier.parse(found.vkey()) == found
