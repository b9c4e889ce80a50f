"""Mutated tokens, documents, challenges and key files: only the declared error, and memory in proportion.

Each is mutated as bytes, and once more below its signature, signed again: so the readers behind it are reached as well.
``EDGE_AGENT_FUZZ_EXAMPLES`` raises the number of examples for a long run.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.peers.wire import pack
from edge_agent.services import documents, enrolment, jws, keyfile, rotation, tokens
from edge_agent.services.challenges import Challenges
from edge_agent.services.errors import StartError
from edge_agent.services.sealing import NONCE, Sealing
from edge_agent.services.tokens import Claims, Clock, Issuer

EXAMPLES = int(os.environ.get("EDGE_AGENT_FUZZ_EXAMPLES", "3000"))
NOW = 1_800_000_000
SIGNERS = [jws.Signer(bytes([number]) * 32) for number in range(4)]
SIGNER = SIGNERS[0]
ISSUER = Issuer("here", {SIGNER.id: SIGNER.key})
CLAIMS = Claims("here", "camera", "storage", "read", NOW, NOW + 300, "1", "nonce", "boot", 7)
DOCUMENT = rotation.enrol(rotation.begin("here", SIGNERS[0], SIGNERS[1], NOW), "node", ("a" * 40, "b" * 40), NOW)
ROTATED = rotation.rotate(DOCUMENT, SIGNERS[1], SIGNERS[2], NOW, NOW)
REVOKED = rotation.revoke(ROTATED, jws.encode(SIGNERS[0].key), "lost", SIGNERS[1], SIGNERS[2], SIGNERS[3], NOW)
NUMBERS = [0, -1, 2**53, 2**70, 1.5, 1e400]
VALUES: list[Any] = [*NUMBERS, None, True, "", "x", "\ud800", "\0", [], {}, [[]], [{}], {"key": 1}, ["x"] * 99]
PIECES = [b".", b"=", b"-_", b"eyJ", b"\0", b"\xff", b"{}", b'"', b"A" * 300, b"[" * 300, b"e9"]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """With one to four edits."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(made))
        kind = chance.randrange(5)
        if kind == 0 and at < len(made):
            made[at] ^= chance.randint(1, 255)
        elif kind == 1:
            made[at:at] = chance.choice(PIECES)
        elif kind == 2:
            del made[at : at + chance.randint(1, 40)]
        elif kind == 3:
            made[at:at] = made[at : at + chance.randint(1, 200)]
        else:
            made = made[:at] if chance.random() < 0.5 else made[at:]
    return bytes(made)


def bent(value: Any, chance: random.Random) -> Any:
    """The JSON value with one or two of its parts replaced, taken out, or added."""
    value = json.loads(json.dumps(value))
    for _ in range(chance.randint(1, 2)):
        inner = value
        while isinstance(inner, dict | list) and inner:
            key: Any = chance.choice(list(inner)) if isinstance(inner, dict) else chance.randrange(len(inner))
            if chance.random() < 0.4 or not isinstance(inner[key], dict | list) or not inner[key]:
                if chance.random() < 0.2:
                    del inner[key]
                else:
                    inner[key] = copy.deepcopy(chance.choice(VALUES))
                break
            inner = inner[key]
    return value


def signed(payload: bytes, typ: str, signer: jws.Signer) -> str:
    header = json.dumps({"alg": "EdDSA", "kid": signer.id, "typ": typ}, separators=(",", ":")).encode()
    text = f"{jws.encode(header)}.{jws.encode(payload)}"
    return f"{text}.{jws.encode(signer.sign(text.encode()))}"


def payload_of(text: str, typ: str) -> bytes:
    return jws.split(text, typ, documents.MAX_DOCUMENT).payload


def runs(call: Callable[[random.Random], None]) -> None:
    chance = random.Random(5)
    for _ in range(EXAMPLES):
        call(chance)


def take_token(text: str) -> None:
    clock = Clock(NOW, "" if len(text) % 2 else "doubt", NOW - 5.0, "boot", 8.0)
    with contextlib.suppress(tokens.TokenError):
        claims = tokens.verify(text, ISSUER, "storage", clock, {"nonce": 1.0}.get)
        assert (claims.issuer, claims.audience) == ("here", "storage")
        assert 0 < claims.expires - claims.issued <= tokens.MAX_LIFETIME


def take_document(text: str) -> None:
    with contextlib.suppress(documents.DocumentError):
        document = documents.parse(text)
        for known in (DOCUMENT, ROTATED, REVOKED):
            with contextlib.suppress(documents.DocumentError):
                documents.follow(document, known.current)
                documents.update(known, document)
                assert document.sequence >= known.sequence


def test_tokens_as_text() -> None:
    seed = tokens.issue(CLAIMS, SIGNER).encode()
    runs(lambda chance: take_token(mutated(seed, chance).decode("utf-8", "surrogateescape")))


def test_tokens_with_other_claims() -> None:
    seed = payload_of(tokens.issue(CLAIMS, SIGNER), tokens.TYP)
    value = json.loads(seed)
    runs(lambda chance: take_token(signed(mutated(seed, chance), tokens.TYP, SIGNER)))
    runs(lambda chance: take_token(signed(json.dumps(bent(value, chance)).encode(), tokens.TYP, SIGNER)))


def test_documents_as_text() -> None:
    seeds = [documents.write(each, signer).encode() for each, signer in ((DOCUMENT, SIGNERS[0]), (REVOKED, SIGNERS[1]))]
    runs(lambda chance: take_document(mutated(chance.choice(seeds), chance).decode("utf-8", "surrogateescape")))


def test_documents_with_other_content() -> None:
    seed = payload_of(documents.write(REVOKED, SIGNERS[1]), documents.TYP)
    value = json.loads(seed)
    runs(lambda chance: take_document(signed(mutated(seed, chance), documents.TYP, SIGNERS[1])))
    runs(lambda chance: take_document(signed(json.dumps(bent(value, chance)).encode(), documents.TYP, SIGNERS[1])))


def test_answers_to_an_enrolment() -> None:
    seeds = [
        pack({"v": 1, "id": 1, "ok": True, "document": "x" * 99}),
        pack({"v": 1, "id": 1, "ok": False, "error": {"code": "revoked", "why": "it is", "fix": "so"}}),
    ]

    def take(chance: random.Random) -> None:
        said = enrolment.refusal(mutated(chance.choice(seeds), chance))
        assert isinstance(said, str)

    runs(take)
    assert enrolment.refusal(seeds[0]) == ""
    assert enrolment.refusal(seeds[1]) == "it is; fix: so"


def test_challenges() -> None:
    challenges = Challenges(b"s" * 32)
    seed = challenges.make(1000.0, b"r" * 8)

    def take(chance: random.Random) -> None:
        text = mutated(seed.encode(), chance).decode("utf-8", "surrogateescape")
        assert text == seed or challenges.age(text, 1000.0) is None

    runs(take)


def test_key_files(tmp_path: Path) -> None:
    path, seal = tmp_path / "identity.key", Sealing(b"s" * 32, "")
    plain = b"ed25519 " + b"A" * 43 + b"= 001764030000\n"
    sealed = f"ed25519-sealed {seal.seal('A' * 43 + '=', bytes(NONCE))} 001764030000\n".encode()

    def take(chance: random.Random) -> None:
        path.write_bytes(mutated(chance.choice((plain, sealed)), chance))
        path.chmod(0o600)
        before = path.read_bytes()
        with contextlib.suppress(StartError):
            secret = keyfile.load(str(path), "ed25519", 44, seal if before.startswith(b"ed25519-") else keyfile.PLAIN)
            assert secret is not None
            assert len(secret.text) == 44
        assert path.read_bytes() == before, "bad input loses nothing"

    runs(take)


def test_memory_stays_in_proportion_to_the_text() -> None:
    """The worst that fits into a document: small objects, deep lists, long numbers."""
    most = documents.MAX_DOCUMENT * 3 // 4 - 400
    bodies = [
        b"[" * most,
        b'{"a":[' + b"{}," * (most // 3 - 5) + b"{}]}",
        b'{"a":[' + b"[]," * (most // 3 - 5) + b"[]]}",
        b'{"a":' + b"9" * (most - 10) + b"}",
        b'{"a":"' + b"\\u00e9" * (most // 6 - 5) + b'"}',
        b"{" + b",".join(b'"%d":0' % number for number in range(most // 9)) + b"}",
    ]
    tracemalloc.start()
    try:
        for body in bodies:
            take_document(signed(body, documents.TYP, SIGNER))
            take_token(signed(body, tokens.TYP, SIGNER))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * documents.MAX_DOCUMENT, f"{peak} bytes"
