"""The public identity document of a node: its keys, and how they came after each other. Pure; anyone may import it.

A compact JWS (``jws``) signed by the node's current key. Who has pinned any key that the node has had, and has got the
document from whomever, can follow it to the current one:

    {"v": 1, "node": name, "sequence": n, "issued": unix seconds by the node's clock, 0 when that was in doubt,
     "current": key, "next": key, "previous": [{"key": key, "until": unix seconds or 0}],
     "chain": [{"key": key, "successor": key, "signature": by key over LINK | key | successor}],
     "revoked": [{"key": key, "reason": text}],
     "services": {name: [CURVE key, its next one]}}          Ed25519 keys in base64url, CURVE keys in Z85

*Overlap.* The next key is announced from the beginning. So a verifier takes tokens by the current, the next and the
previous keys: by the next, as it may not have heard of a rotation; by the previous, as tokens of before still live.

*What a verifier remembers* is the last document it accepted. ``update`` lets nothing but a later one follow: with a
higher sequence, signed along the chain from the key it knew, with every revocation it knew. A lower sequence is a
rollback; the same sequence with other content is a fork, and the two texts are the evidence.

*Stolen keys.* With the current key a thief can write documents, like its owner; the chain does not tell the two apart.
What tells them apart is memory: after ``revoke`` the owner's document is signed by the key that was announced as next,
and a verifier that has seen that announcement follows nobody else, unless that key was revoked by the current one in
between. A verifier with no more than a pinned key believes whom it hears first. So a chain that starts at a revoked
key is followed all the same (``follow``): a thief's document would not list it as revoked, so refusing would keep
nobody out but the owner. A key that a verifier *knows* to be revoked, from an earlier document, stays so.
"""

from __future__ import annotations

from itertools import pairwise

from ..peers.zap import is_key
from ..records import Record
from . import jws
from .tokens import MAX_WORD, Clock, Issuer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    T = TypeVar("T")

TYP = "edge-agent-identity+jwt"
VERSION = 1
LINK = b"edge-agent key succession v1\n"
MAX_DOCUMENT = 32 * 1024  # characters
MAX_CHAIN = 32  # links; who has pinned a key of more than so many rotations ago must pin again
MAX_PREVIOUS = 4
MAX_REVOKED = 64
MAX_SERVICES = 16
MAX_REASON = 64  # characters
_MOST = 2**53  # of sequence and seconds: what every JSON reader keeps exact


class DocumentError(ValueError):
    """The document is refused. ``code``: malformed, signature, chain, revoked, unknown-key, node, rollback, fork."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code, self.why = code, why


class Link(Record):
    """``key`` has said who comes after it."""

    key: bytes
    successor: bytes
    signature: bytes


class Previous(Record):
    """A key that no longer signs. ``until``: when the node will drop it, unix seconds; 0: its clock was in doubt."""

    key: bytes
    until: int


class Revoked(Record):
    """``key``: base64url of an Ed25519 key, or Z85 of a CURVE key."""

    key: str
    reason: str


class Document(Record):
    """What a node says of its keys; ``parse`` has found it to be consistent."""

    node: str
    sequence: int
    issued: int
    current: bytes
    next: bytes
    previous: tuple[Previous, ...]
    chain: tuple[Link, ...]
    revoked: tuple[Revoked, ...]
    services: Mapping[str, tuple[str, ...]]

    def revokes(self, key: bytes | str) -> bool:
        """Is this Ed25519 key (bytes) or CURVE key (Z85) revoked?"""
        text = jws.encode(key) if isinstance(key, bytes) else key
        return any(each.key == text for each in self.revoked)

    def issuer(self, clock: Clock) -> Issuer:
        """Whose tokens to take, by which keys. A previous key ends where the clock is believed and it is over."""
        lasting = [each.key for each in self.previous if clock.doubt or not each.until or clock.wall < each.until]
        return Issuer(self.node, {jws.key_id(key): key for key in (self.current, self.next, *lasting)})

    def curve_keys(self) -> frozenset[str]:
        """Every CURVE key of the node's services, present and next."""
        return frozenset(key for keys in self.services.values() for key in keys)


def link(signer: jws.Signer, successor: bytes) -> Link:
    """That ``successor`` comes after this key."""
    return Link(signer.key, successor, signer.sign(LINK + signer.key + successor))


def write(document: Document, signer: jws.Signer) -> str:
    """The document as text. ``signer`` must be its current key. Raises DocumentError when nobody could read it."""
    payload = {
        "v": VERSION,
        "node": document.node,
        "sequence": document.sequence,
        "issued": document.issued,
        "current": jws.encode(document.current),
        "next": jws.encode(document.next),
        "previous": [{"key": jws.encode(each.key), "until": each.until} for each in document.previous],
        "chain": [dict(zip(Link._fields, map(jws.encode, each), strict=True)) for each in document.chain],
        "revoked": [{"key": each.key, "reason": each.reason} for each in document.revoked],
        "services": {name: list(keys) for name, keys in document.services.items()},
    }
    text = jws.sign(payload, TYP, signer)
    if parse(text) != document:
        raise DocumentError("malformed", "it does not read as it was written")
    return text


def parse(text: str) -> Document:
    """The document in ``text``, signed by its own current key and consistent. Raises DocumentError.

    Says nothing about whose it is: ``follow`` and ``update`` do.
    """
    try:
        found = jws.split(text, TYP, MAX_DOCUMENT)
        payload = jws.read(found.payload, MAX_DOCUMENT)
        document = _document(payload)
    except jws.JwsError as error:
        raise DocumentError("malformed", f"not an identity document: {error}") from error
    if found.kid != jws.key_id(document.current) or not jws.verifies(document.current, found.signed, found.signature):
        raise DocumentError("signature", "not signed by its own current key")
    _check_chain(document)
    return document


def follow(document: Document, pinned: bytes) -> None:
    """That ``document`` is of the node that has had the key ``pinned``. Raises DocumentError('unknown-key')."""
    if pinned not in (document.current, document.next) and all(each.key != pinned for each in document.chain):
        raise DocumentError("unknown-key", "its chain of keys does not lead from the pinned key")


def update(known: Document, document: Document) -> None:
    """That ``document`` may take the place of ``known``, or is the same. Raises DocumentError."""
    if document.node != known.node:
        raise DocumentError("node", f"is of {document.node}, not of {known.node}")
    if document.sequence < known.sequence:
        raise DocumentError("rollback", f"has sequence {document.sequence} after {known.sequence} was seen")
    if document.sequence == known.sequence:
        if document != known:
            raise DocumentError("fork", f"another document of sequence {known.sequence} was seen")
        return
    lost = [each.key for each in known.revoked if not document.revokes(each.key)]
    if lost:
        raise DocumentError("revoked", f"takes back the revocation of {lost[0]}")
    if document.current == known.current:
        return
    successors = {each.key: each.successor for each in document.chain}
    successor = successors.get(known.current)
    if successor is None and document.current != known.next:
        raise DocumentError("unknown-key", "its chain of keys does not lead from the one that was known")
    if successor is not None and successor != known.next and not document.revokes(known.next):
        raise DocumentError("fork", "another key follows than the one that was announced")


def _check_chain(document: Document) -> None:
    chain = document.chain
    if not chain or (chain[-1].key, chain[-1].successor) != (document.current, document.next):
        raise DocumentError("chain", "its chain of keys does not lead from the current to the next one")
    keys = [each.key for each in chain] + [document.next]
    if len(set(keys)) != len(keys):
        raise DocumentError("chain", "a key comes twice in its chain")
    for one, after in pairwise(chain):
        if one.successor != after.key:
            raise DocumentError("chain", "its chain of keys is interrupted")
    for each in chain:
        if not jws.verifies(each.key, LINK + each.key + each.successor, each.signature):
            raise DocumentError("chain", "a key of its chain was not named by the one before")
    used: tuple[bytes, ...] = (document.current, document.next, *(each.key for each in document.previous))
    if len(set(used)) != len(used):
        raise DocumentError("malformed", "a key has two roles")
    if any(map(document.revokes, used)) or any(map(document.revokes, document.curve_keys())):
        raise DocumentError("revoked", "a key is in use and revoked")


# -- JSON to records; each raises JwsError


def _document(payload: Mapping[str, Any]) -> Document:
    if payload.get("v") != VERSION:
        raise jws.JwsError(f"this release reads version {VERSION}")
    node = payload.get("node")
    if not isinstance(node, str) or not 0 < len(node) <= MAX_WORD or not node.isprintable():
        raise jws.JwsError(f"node is not 1 to {MAX_WORD} printable characters")
    services = payload.get("services")
    if not isinstance(services, dict) or len(services) > MAX_SERVICES:
        raise jws.JwsError(f"services is not an object of at most {MAX_SERVICES}")
    return Document(
        node=node,
        sequence=_whole(payload, "sequence"),
        issued=_whole(payload, "issued"),
        current=_key(payload, "current"),
        next=_key(payload, "next"),
        previous=_list(payload, "previous", MAX_PREVIOUS, _previous),
        chain=_list(payload, "chain", MAX_CHAIN, _link),
        revoked=_list(payload, "revoked", MAX_REVOKED, _revoked),
        services={_service(name): _curve_keys(keys) for name, keys in services.items()},
    )


def _previous(given: Mapping[str, Any]) -> Previous:
    return Previous(_key(given, "key"), _whole(given, "until"))


def _link(given: Mapping[str, Any]) -> Link:
    return Link(_key(given, "key"), _key(given, "successor"), _bytes(given, "signature", jws.SIGNATURE))


def _revoked(given: Mapping[str, Any]) -> Revoked:
    key, reason = given.get("key"), given.get("reason")
    if not isinstance(key, str) or not (is_key(key) or len(jws.decode(key)) == jws.KEY):
        raise jws.JwsError("a revoked key is neither Ed25519 nor CURVE")
    if not isinstance(reason, str) or len(reason) > MAX_REASON or not reason.isprintable():
        raise jws.JwsError(f"a reason is not at most {MAX_REASON} printable characters")
    return Revoked(key, reason)


def _service(name: str) -> str:
    if not 0 < len(name) <= MAX_WORD or not name.isprintable():
        raise jws.JwsError("a service's name is not printable")
    return name


def _curve_keys(given: object) -> tuple[str, ...]:
    if not isinstance(given, list) or not 1 <= len(given) <= 2 or len(given) != len(set(map(str, given))):
        raise jws.JwsError("a service has not one or two CURVE keys")
    if not all(isinstance(key, str) and is_key(key) for key in given):
        raise jws.JwsError("a service has a key that is not CURVE")
    return tuple(given)


def _list(payload: Mapping[str, Any], name: str, most: int, read: Callable[[Mapping[str, Any]], T]) -> tuple[T, ...]:
    given = payload.get(name)
    if not isinstance(given, list) or len(given) > most or not all(isinstance(each, dict) for each in given):
        raise jws.JwsError(f"{name} is not a list of at most {most} objects")
    return tuple(read(each) for each in given)


def _key(given: Mapping[str, Any], name: str) -> bytes:
    return _bytes(given, name, jws.KEY)


def _bytes(given: Mapping[str, Any], name: str, length: int) -> bytes:
    value = given.get(name)
    data = jws.decode(value) if isinstance(value, str) else b""
    if len(data) != length:
        raise jws.JwsError(f"{name} is not {length} bytes in base64url")
    return data


def _whole(given: Mapping[str, Any], name: str) -> int:
    value = given.get(name)
    if type(value) is not int or not 0 <= value <= _MOST:
        raise jws.JwsError(f"{name} is not a whole number")
    return value
