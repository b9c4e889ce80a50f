"""Identity documents: who may follow whom, and what a verifier with a memory refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_agent.services import documents, jws, rotation, tokens
from edge_agent.services.documents import MAX_CHAIN, MAX_PREVIOUS, MAX_REVOKED, Document, DocumentError, Previous
from edge_agent.services.jws import Signer
from edge_agent.services.rotation import RotationError
from edge_agent.services.tokens import Claims, Clock

FIXTURES = Path(__file__).parents[1] / "fixtures/identity"
NOW = 1_800_000_000
SIGNERS = [Signer(bytes([number]) * 32) for number in range(60)]
FIRST = rotation.begin("here", SIGNERS[0], SIGNERS[1], 1000)
CURVE = [letter * 40 for letter in "abcdefgh"]


def turned(document: Document, times: int, start: int = 1) -> Document:
    """After so many rotations, each without an overlap; key ``start`` is the document's next."""
    for number in range(start, start + times):
        document = rotation.rotate(document, SIGNERS[number], SIGNERS[number + 1], 5000, 2000)
        document = rotation.retire(document, [each.key for each in document.previous], 2000)
    return document


def revoke(document: Document, signer: Signer | str, at: int = 0, fresh: int = 50) -> Document:
    """``at``: the number of the current signer."""
    key = signer if isinstance(signer, str) else jws.encode(signer.key)
    return rotation.revoke(document, key, "lost", SIGNERS[at], SIGNERS[at + 1], SIGNERS[fresh], 3000)


def error(known: Document, document: Document) -> str:
    with pytest.raises(DocumentError) as caught:
        documents.update(known, document)
    return caught.value.code


def test_a_document_reads_as_it_was_written() -> None:
    text = documents.write(FIRST, SIGNERS[0])
    assert documents.parse(text) == FIRST
    assert text.encode().startswith(jws.BEGINNING)


def test_with_any_pinned_key_of_the_past_it_can_be_followed() -> None:
    document = turned(FIRST, 20)
    assert documents.parse(documents.write(document, SIGNERS[20])) == document
    for signer in SIGNERS[:22]:
        documents.follow(document, signer.key)
    with pytest.raises(DocumentError) as caught:
        documents.follow(document, SIGNERS[30].key)
    assert caught.value.code == "unknown-key"


def test_the_chain_is_bounded_and_forgets_its_oldest_keys() -> None:
    document = turned(FIRST, MAX_CHAIN + 5)
    assert len(document.chain) == MAX_CHAIN
    documents.parse(documents.write(document, SIGNERS[MAX_CHAIN + 5]))
    documents.follow(document, SIGNERS[6].key)
    with pytest.raises(DocumentError):
        documents.follow(document, SIGNERS[5].key)


def test_the_largest_document_can_be_written() -> None:
    document = turned(FIRST, MAX_CHAIN)
    for number in range(documents.MAX_SERVICES):
        keys = (chr(97 + number) * 40, chr(65 + number) * 40)
        document = rotation.enrol(document, f"service-{number}" + "x" * 50, keys, 0)
    revoked = tuple(documents.Revoked(jws.encode(number.to_bytes(32)), "x" * 64) for number in range(MAX_REVOKED))
    text = documents.write(document._replace(revoked=revoked), SIGNERS[MAX_CHAIN])
    assert len(text) <= documents.MAX_DOCUMENT


def test_tokens_are_taken_by_the_current_the_next_and_the_previous_keys() -> None:
    document = rotation.rotate(FIRST, SIGNERS[1], SIGNERS[2], 5000, 2000)
    three = {signer.id for signer in SIGNERS[:3]}
    assert set(document.issuer(Clock(4999.0)).keys) == three
    assert set(document.issuer(Clock(5000.0)).keys) == three - {SIGNERS[0].id}
    assert set(document.issuer(Clock(9e9, "unsure")).keys) == three, "who doubts its clock waits for a new document"
    forever = document._replace(previous=(Previous(SIGNERS[0].key, 0),))
    assert set(forever.issuer(Clock(9e9)).keys) == three


def test_a_verifier_that_remembers_takes_only_what_follows() -> None:
    later = turned(FIRST, 3)
    documents.update(FIRST, FIRST)
    documents.update(FIRST, later)
    assert error(later, FIRST) == "rollback"
    assert error(FIRST, rotation.begin("here", SIGNERS[0], SIGNERS[9], 1000)) == "fork"
    assert error(FIRST, rotation.rename(FIRST, "there", 0)) == "node"
    stranger = rotation.begin("here", SIGNERS[40], SIGNERS[41], 0)
    assert error(FIRST, stranger._replace(sequence=9)) == "unknown-key"


def test_after_a_theft_the_announced_key_is_the_one_that_is_followed() -> None:
    thief = Signer(b"t" * 32)
    stolen = rotation.begin("here", SIGNERS[0], thief, 0)  # by the stolen current key
    stolen = rotation.rotate(stolen, thief, Signer(b"u" * 32), 0, 0)._replace(sequence=50)
    documents.parse(documents.write(stolen, thief))
    documents.follow(stolen, SIGNERS[0].key)  # who knows nothing but a pinned key cannot tell
    assert error(FIRST, stolen) == "fork"
    owner = revoke(FIRST, SIGNERS[0])
    assert owner.current == SIGNERS[1].key
    documents.parse(documents.write(owner, SIGNERS[1]))
    documents.update(FIRST, owner)
    documents.follow(owner, SIGNERS[0].key)
    assert SIGNERS[0].id not in owner.issuer(Clock(0.0)).keys
    assert error(owner, stolen._replace(sequence=99)) == "revoked"


def test_a_revoked_next_key_is_replaced_and_the_chain_goes_by_the_other() -> None:
    document = revoke(FIRST, SIGNERS[1])
    assert (document.current, document.next) == (SIGNERS[0].key, SIGNERS[50].key)
    documents.parse(documents.write(document, SIGNERS[0]))
    later = rotation.rotate(document, SIGNERS[50], SIGNERS[51], 0, 0)
    documents.parse(documents.write(later, SIGNERS[50]))
    documents.update(FIRST, document)
    documents.update(FIRST, later)


def test_a_revoked_previous_key_signs_for_nothing_any_more() -> None:
    document = rotation.rotate(FIRST, SIGNERS[1], SIGNERS[2], 0, 0)
    document = revoke(document, SIGNERS[0], at=1)
    assert set(document.issuer(Clock(0.0)).keys) == {SIGNERS[1].id, SIGNERS[2].id}


def test_a_revocation_cannot_be_taken_back() -> None:
    known = revoke(FIRST, SIGNERS[1])
    assert error(known, known._replace(sequence=9, revoked=())) == "revoked"
    with pytest.raises(RotationError, match="no such key"):
        revoke(known, SIGNERS[1])
    later = revoke(known, SIGNERS[0], at=0)._replace(current=SIGNERS[1].key)
    assert error(known, later._replace(revoked=later.revoked[1:])) == "revoked"


def test_what_cannot_be_done_says_so_and_changes_nothing() -> None:
    with pytest.raises(RotationError, match="no such key"):
        revoke(FIRST, SIGNERS[9])
    with pytest.raises(RotationError, match="no such key"):
        revoke(FIRST, "nonsense")
    full = FIRST._replace(revoked=tuple(documents.Revoked(str(number), "") for number in range(MAX_REVOKED)))
    with pytest.raises(RotationError, match="holds 64 revocations"):
        revoke(full, SIGNERS[0])
    document = FIRST
    for number in range(1, MAX_PREVIOUS + 1):
        document = rotation.rotate(document, SIGNERS[number], SIGNERS[number + 1], 0, 0)
    documents.parse(documents.write(document, SIGNERS[MAX_PREVIOUS]))
    with pytest.raises(RotationError, match="still valid"):
        rotation.rotate(document, SIGNERS[5], SIGNERS[6], 0, 0)


def test_the_keys_of_services_come_in_pairs_and_can_be_revoked() -> None:
    document = rotation.enrol(FIRST, "node", (CURVE[0], CURVE[1]), 0)
    assert rotation.enrol(document, "node", (CURVE[0], CURVE[1]), 0) is document
    assert document.curve_keys() == {CURVE[0], CURVE[1]}
    document = revoke(document, CURVE[0])
    assert document.services == {"node": (CURVE[1],)}
    for keys, why in (((CURVE[0],), "revoked"), ((), "one or two"), ((CURVE[2],) * 2, "one or two"), (("x",), "Z85")):
        with pytest.raises(RotationError, match=why):
            rotation.enrol(document, "node", keys, 0)
    with pytest.raises(RotationError, match="another service"):
        rotation.enrol(document, "storage", (CURVE[1],), 0)
    assert revoke(document, CURVE[1]).services == {}
    for number in range(documents.MAX_SERVICES - 1):
        document = rotation.enrol(document, f"s{number}", (chr(65 + number) * 40,), 0)
    with pytest.raises(RotationError, match="16 services"):
        rotation.enrol(document, "one-more", (CURVE[3],), 0)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"current": SIGNERS[5].key}, "signature"),
        ({"next": SIGNERS[5].key}, "chain"),
        ({"chain": ()}, "chain"),
        ({"chain": (documents.link(SIGNERS[5], SIGNERS[0].key), *FIRST.chain)}, ""),
        ({"chain": (documents.link(SIGNERS[5], SIGNERS[6].key), *FIRST.chain)}, "chain"),
        ({"chain": (FIRST.chain[0]._replace(signature=bytes(64)),)}, "chain"),
        ({"chain": (documents.link(SIGNERS[1], SIGNERS[0].key), *FIRST.chain)}, "chain"),
        ({"previous": (Previous(SIGNERS[0].key, 0),)}, "malformed"),
        ({"previous": (Previous(SIGNERS[5].key, 0),) * 2}, "malformed"),
        ({"previous": (Previous(SIGNERS[5].key, 0),) * 5}, "malformed"),
        ({"revoked": (documents.Revoked(jws.encode(SIGNERS[0].key), ""),)}, "revoked"),
        ({"revoked": (documents.Revoked("x", ""),)}, "malformed"),
        ({"revoked": (documents.Revoked(CURVE[0], ""),), "services": {"a": (CURVE[0],)}}, "revoked"),
        ({"services": {"a": ("x",)}}, "malformed"),
        ({"services": {"": (CURVE[0],)}}, "malformed"),
        ({"sequence": -1}, "malformed"),
        ({"sequence": 1.5}, "malformed"),
        ({"node": ""}, "malformed"),
    ],
)
def test_a_document_that_contradicts_itself_is_refused(changes: dict[str, Any], code: str) -> None:
    document = FIRST._replace(**changes)
    if not code:
        documents.write(document, SIGNERS[0])
        return
    with pytest.raises(DocumentError) as caught:
        documents.write(document, SIGNERS[0])
    assert caught.value.code == code


def test_a_token_is_no_document_whoever_signed_it() -> None:
    text = documents.write(FIRST, SIGNERS[0])
    payload = jws.read(jws.split(text, documents.TYP, 9999).payload, 9999)
    with pytest.raises(DocumentError, match="header"):
        documents.parse(jws.sign(payload, "JWT", SIGNERS[0]))
    with pytest.raises(DocumentError, match="version 1"):
        documents.parse(jws.sign({**payload, "v": 2}, documents.TYP, SIGNERS[0]))


# -- releases read each other


def test_what_the_first_release_wrote_is_read_and_written_the_same() -> None:
    text = (FIXTURES / "document-1").read_text().strip()
    document = rotation.enrol(
        rotation.begin("here", SIGNERS[0], SIGNERS[1], NOW), "node", (CURVE[0], CURVE[1]), NOW + 1
    )
    document = rotation.rotate(document, SIGNERS[1], SIGNERS[2], NOW + 86_400, NOW + 2)
    lost = jws.encode(SIGNERS[2].key)
    document = rotation.revoke(document, lost, "lost", SIGNERS[1], SIGNERS[2], SIGNERS[3], NOW + 3)
    assert documents.parse(text) == document
    assert documents.write(document, SIGNERS[1]) == text
    claims = Claims("here", "camera", "storage", "read write", NOW, NOW + 300, "1", "nonce", "boot", 7)
    token = (FIXTURES / "token-1").read_text().strip()
    assert tokens.verify(token, document.issuer(Clock(0.0)), "storage", Clock(0.0), {"nonce": 1.0}.get) == claims
    assert tokens.issue(claims, SIGNERS[1]) == token


def test_what_a_later_release_adds_is_ignored() -> None:
    payload = jws.read(jws.split(documents.write(FIRST, SIGNERS[0]), documents.TYP, 9999).payload, 9999)
    more = {**payload, "later": {"a": [1]}, "chain": [{**each, "later": 1} for each in payload["chain"]]}
    assert documents.parse(jws.sign(more, documents.TYP, SIGNERS[0])) == FIRST
