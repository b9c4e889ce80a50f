"""Signed JSON: compact JWS (RFC 7515) by Ed25519 (RFC 8037), and nothing else of JOSE. Pure.

    BASE64URL(header) '.' BASE64URL(payload) '.' BASE64URL(signature)
    header   {"alg": "EdDSA", "kid": thumbprint of the key (RFC 7638), "typ": what the payload is}

Any JOSE library reads it. Here no header chooses an algorithm: there is one, and one ``typ`` per reader, so that a
signature over one kind of thing is never taken for one over another. Strict where RFC 7515 lets readers be lax: no
padding, no second way to write the same bytes, no key twice in an object, no blanks in a header. So every JWS that is
taken here begins with ``BEGINNING``, and a service that signs for others can keep its hands off those.
"""

from __future__ import annotations

import base64
import json

from ..records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Never

SEED, KEY, SIGNATURE = 32, 32, 64  # bytes, RFC 8032
KEY_TEXT = 43  # characters of a key, and of its thumbprint, in base64url
BEGINNING = b"eyJ"
_HEADER = {"alg", "kid", "typ"}
_MAX_HEADER = 256  # bytes


class JwsError(ValueError):
    """The text is not an acceptable JWS; says why, without repeating it."""


class Unverified(Record):
    """A JWS taken apart. Nothing of it may be believed before ``verifies`` has said so."""

    kid: str
    payload: bytes
    signed: bytes  # what the signature is over
    signature: bytes


class Signer:
    """An Ed25519 key pair. ``key``: the public half; ``id``: its thumbprint. Raises ValueError for a bad seed."""

    __slots__ = ("_secret", "id", "key", "seed")

    def __init__(self, seed: bytes) -> None:
        import nacl.bindings

        if len(seed) != SEED:
            raise ValueError(f"a seed is {SEED} bytes")
        self.seed = seed
        self.key, self._secret = nacl.bindings.crypto_sign_seed_keypair(seed)
        self.id = key_id(self.key)

    def sign(self, data: bytes) -> bytes:
        """The signature over ``data``, 64 bytes (RFC 8032)."""
        import nacl.bindings

        return nacl.bindings.crypto_sign(data, self._secret)[:SIGNATURE]


def verifies(key: bytes, data: bytes, signature: bytes) -> bool:
    """Is this the signature of ``key`` over ``data``? Never raises for bytes, whatever their length."""
    import nacl.bindings
    from nacl.exceptions import CryptoError

    if len(key) != KEY or len(signature) != SIGNATURE:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + data, key)
    except CryptoError:
        return False
    return True


def encode(data: bytes) -> str:
    """base64url without padding (RFC 7515, appendix C)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The bytes that ``encode`` writes as ``text``. Raises JwsError for anything else."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except ValueError as error:
        raise JwsError("not base64url") from error
    if encode(data) != text:
        raise JwsError("not base64url in its one form")
    return data


def key_id(key: bytes) -> str:
    """The thumbprint of an Ed25519 public key (RFC 7638 as RFC 8037 section 2 has it), 43 characters."""
    import nacl.bindings  # hashlib would bring OpenSSL, 3 MiB

    text = f'{{"crv":"Ed25519","kty":"OKP","x":"{encode(key)}"}}'
    return encode(nacl.bindings.crypto_hash_sha256(text.encode()))


def sign(payload: dict[str, Any], typ: str, signer: Signer) -> str:
    """``payload`` as a compact JWS."""
    header = {"alg": "EdDSA", "kid": signer.id, "typ": typ}
    signed = f"{encode(_dump(header))}.{encode(_dump(payload))}"
    return f"{signed}.{encode(signer.sign(signed.encode()))}"


def split(text: str, typ: str, limit: int) -> Unverified:
    """The parts of a compact JWS of at most ``limit`` characters whose payload is a ``typ``. Raises JwsError."""
    if len(text) > limit:
        raise JwsError(f"{len(text)} characters, at most {limit} are allowed")
    parts = text.split(".", 3)
    if len(parts) != 3 or not text.isascii():
        raise JwsError("not three parts of base64url")
    head, payload, signature = (decode(part) for part in parts)
    header = read(head, _MAX_HEADER)
    if set(header) != _HEADER or header["alg"] != "EdDSA" or header["typ"] != typ or _dump(header) != head:
        raise JwsError(f"the header is not that of an EdDSA {typ}")
    kid = header["kid"]
    if not isinstance(kid, str) or len(kid) != KEY_TEXT:
        raise JwsError("kid is not the thumbprint of a key")
    if len(signature) != SIGNATURE:
        raise JwsError(f"the signature is not {SIGNATURE} bytes")
    return Unverified(kid, payload, text.rpartition(".")[0].encode(), signature)


def read(data: bytes, limit: int) -> dict[str, Any]:
    """The JSON object in ``data``: UTF-8, no key twice, no NaN. Raises JwsError."""
    if len(data) > limit:
        raise JwsError(f"{len(data)} bytes of JSON, at most {limit} are allowed")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except JwsError:
        raise
    except (ValueError, RecursionError) as error:
        raise JwsError("not JSON") from error
    if not isinstance(value, dict):
        raise JwsError("not a JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise JwsError("a key twice in one object")
    return made


def _no_constant(name: str) -> Never:
    raise JwsError(f"{name} is no number of JSON")


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
