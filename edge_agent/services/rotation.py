"""How a node's keys follow each other: each function takes a Document and gives the next one. Pure.

Secrets come in as Signers and randomness as fresh ones, so the same calls give the same documents. Whoever keeps the
keys writes the new document to disk before anything signs by it.
"""

from __future__ import annotations

from ..peers.zap import is_key
from . import jws
from .documents import (
    MAX_CHAIN,
    MAX_PREVIOUS,
    MAX_REASON,
    MAX_REVOKED,
    MAX_SERVICES,
    Document,
    Link,
    Previous,
    Revoked,
    link,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

CURRENT, NEXT, PREVIOUS, CURVE, PAST = "current", "next", "previous", "curve", "past"


class RotationError(ValueError):
    """It cannot be done now; nothing has changed. ``code``: busy, unknown-key, revoked, full or bad-request."""

    def __init__(self, code: str, why: str, fix: str) -> None:
        super().__init__(f"{why}; fix: {fix}")
        self.code, self.why, self.fix = code, why, fix


def begin(node: str, current: jws.Signer, after: jws.Signer, issued: int) -> Document:
    """The first document of a node."""
    return Document(node, 1, issued, current.key, after.key, (), (link(current, after.key),), (), {})


def rename(document: Document, node: str, issued: int) -> Document:
    """The same keys under another name. Verifiers that know the old name have to pin the key again."""
    return _after(document, issued, node=node)


def rotate(document: Document, after: jws.Signer, fresh: jws.Signer, until: int, issued: int) -> Document:
    """The next key becomes the current one, ``fresh`` the next; the current one stays valid for tokens until ``until``.

    ``after``: the document's next key. Raises RotationError('busy') while too many earlier ones are still valid.
    """
    if len(document.previous) >= MAX_PREVIOUS:
        fix = "wait for the end of an overlap, or revoke one of them"
        raise RotationError("busy", f"{MAX_PREVIOUS} previous keys are still valid", fix)
    previous = (*document.previous, Previous(document.current, until))
    return _advance(document, after, fresh, issued)._replace(previous=previous)


def retire(document: Document, keys: Collection[bytes], issued: int) -> Document:
    """The overlap of these previous keys is over; the same document when it has none of them."""
    kept = tuple(each for each in document.previous if each.key not in keys)
    return document if kept == document.previous else _after(document, issued, previous=kept)


def role(document: Document, key: str) -> str:
    """What ``key`` (base64url or Z85) is in the document: CURRENT, NEXT, PREVIOUS, CURVE, PAST, or ''."""
    if key in document.curve_keys():
        return CURVE
    try:
        wanted = jws.decode(key)
    except jws.JwsError:
        return ""
    if wanted == document.current:
        return CURRENT
    if wanted == document.next:
        return NEXT
    if any(each.key == wanted for each in document.previous):
        return PREVIOUS
    return PAST if any(each.key == wanted for each in document.chain) else ""


def revoke(
    document: Document, key: str, reason: str, current: jws.Signer, after: jws.Signer, fresh: jws.Signer, issued: int
) -> Document:
    """``key`` (base64url or Z85) is valid for nothing any more, from now on and for good.

    The current key gives way to the next at once, without an overlap; the next one to ``fresh``. Raises RotationError.
    """
    found = role(document, key)
    if not found:
        raise RotationError("unknown-key", "this node has no such key", "one that `edge-agent identity show` lists")
    if document.revokes(key):
        raise RotationError("revoked", "it is revoked already", "nothing")
    if len(document.revoked) >= MAX_REVOKED:
        fix = "give the node a new identity, and pin that"
        raise RotationError("full", f"a document holds {MAX_REVOKED} revocations", fix)
    if len(reason) > MAX_REASON or not reason.isprintable():
        raise RotationError("bad-request", "the reason is too long", f"at most {MAX_REASON} printable characters")
    if found == CURRENT:
        changed = _advance(document, after, fresh, issued)
    elif found == NEXT:
        chain = (*document.chain[:-1], link(current, fresh.key))
        changed = _after(document, issued, next=fresh.key, chain=chain)
    elif found == CURVE:
        services = {name: tuple(each for each in keys if each != key) for name, keys in document.services.items()}
        changed = _after(document, issued, services={name: keys for name, keys in services.items() if keys})
    else:
        kept = tuple(each for each in document.previous if jws.encode(each.key) != key)
        changed = _after(document, issued, previous=kept)
    return changed._replace(revoked=(*document.revoked, Revoked(key, reason)))


def enrol(document: Document, service: str, keys: tuple[str, ...], issued: int) -> Document:
    """The CURVE keys of a service: its present one, and the next if there is one; the same document when it has them.

    Raises RotationError.
    """
    if not 1 <= len(keys) <= 2 or len(set(keys)) != len(keys) or not all(map(is_key, keys)):
        raise RotationError("bad-request", "keys are not one or two CURVE keys", "40 characters of Z85 each")
    if any(map(document.revokes, keys)):
        raise RotationError(
            "revoked",
            f"a key of {service} is revoked",
            f"edge-agent identity rotate --service {service}, then restart it",
        )
    taken = {key for name, others in document.services.items() if name != service for key in others}
    if taken.intersection(keys):
        raise RotationError("bad-request", "another service has that key", "a key for each service")
    if document.services.get(service) == keys:
        return document
    if service not in document.services and len(document.services) >= MAX_SERVICES:
        raise RotationError("full", f"a document holds the keys of {MAX_SERVICES} services", "revoke one of them")
    return _after(document, issued, services={**document.services, service: keys})


def _advance(document: Document, after: jws.Signer, fresh: jws.Signer, issued: int) -> Document:
    chain: tuple[Link, ...] = (*document.chain, link(after, fresh.key))[-MAX_CHAIN:]
    return _after(document, issued, current=after.key, next=fresh.key, chain=chain)


def _after(document: Document, issued: int, **changes: object) -> Document:
    changed: Document = document._replace(sequence=document.sequence + 1, issued=issued, **changes)  # type: ignore[arg-type]
    return changed
