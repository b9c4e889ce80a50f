"""Signed short-lived tokens: who asks, of whom, for what, and until when. Pure; any service may import it.

A token is a JWT (RFC 7519) signed by the node's Ed25519 key: iss, sub, aud, scope (RFC 8693), iat, exp, jti, and
``nonce``, or ``boot`` and ``up``. It is a bearer token: whoever has it may use it with the one service it names.

Freshness, when nobody is sure of the time. A board without a real-time clock boots in 1970, or where it was switched
off, and one that is offline stays there; it may be the issuer, the verifier, or both. So three rules, and a token is
judged by exactly one, the first that it fits:

1. *Challenge.* It carries a ``nonce``: that must be one which this verifier made (``challenges``), not used yet, and no
   older than the token's lifetime by the verifier's steady clock. The token was signed after the nonce was made, so it
   is no older either. No wall clock is looked at on either side. Nobody else can judge such a token: it is refused.
2. *Boot.* It carries the ``boot`` id of the verifier's own machine and boot: both read one CLOCK_BOOTTIME, which nobody
   sets. It is valid for its lifetime from ``up``, whatever the wall clock does.
3. *Wall clock.* iat - LEEWAY <= now < exp + LEEWAY, where the verifier believes its clock. Where it doubts it, such a
   token is refused ('clock'): to a clock that may be years behind an old token is valid for ever, and one that was
   captured is as good as a new one. The way out is in the refusal: ask for a token bound to a challenge.

A doubted clock still knows a time that has passed (``Clock.floor``): what ended before that is 'expired' all the same.
That time comes from the verifier itself and never from a token: else one peer with a clock in 2040 would expire
everybody else's. A lifetime above MAX_LIFETIME is refused: no issuer, and no wrong clock of one, makes one that lasts.
"""

from __future__ import annotations

from ..records import Record
from . import jws

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

TYP = "JWT"
MAX_TOKEN = 4096  # characters
MAX_LIFETIME = 3600  # seconds
LIFETIME = 300  # seconds, unless asked for otherwise
LEEWAY = 60  # seconds between two clocks that are both right (RFC 7519, section 4.1.4)
MAX_WORD = 128  # characters of issuer, subject, audience
MAX_SCOPE = 256  # characters
_LATEST = 2**48  # seconds; no clock says more


class TokenError(ValueError):
    """The token is refused. ``code``: malformed, unknown-key, signature, issuer, audience, lifetime, expired, early,
    clock, or challenge; ``fix`` may be ''."""

    def __init__(self, code: str, why: str, fix: str = "") -> None:
        super().__init__(f"{why}; fix: {fix}" if fix else why)
        self.code, self.why, self.fix = code, why, fix


class Clock(Record):
    """What a verifier knows of the time. ``doubt``: why ``wall`` is not believed; '' where it is."""

    wall: float  # unix seconds, as somebody has set them
    doubt: str = ""
    floor: float = 0.0  # unix seconds: a time that has certainly passed
    boot: str = ""  # the boot id of this machine, proc_sys_kernel(5) random/boot_id; '' where unknown
    up: float = 0.0  # CLOCK_BOOTTIME, seconds


class Issuer(Record):
    """Whose tokens are judged, and the keys that sign for it: thumbprint -> Ed25519 public key, 32 bytes."""

    name: str
    keys: Mapping[str, bytes]


class Claims(Record):
    """What a token says. Times are whole unix seconds by the issuer's clock."""

    issuer: str
    subject: str
    audience: str
    scope: str  # words with one blank between them
    issued: int
    expires: int
    id: str
    nonce: str = ""
    boot: str = ""
    up: int = 0  # CLOCK_BOOTTIME of the issuer when it was issued, whole seconds

    def allows(self, word: str) -> bool:
        """Is ``word`` part of the scope?"""
        return word in self.scope.split()


def issue(claims: Claims, signer: jws.Signer) -> str:
    """The token. Raises TokenError('malformed' or 'lifetime') for claims that no verifier would take."""
    payload: dict[str, Any] = {
        "iss": claims.issuer,
        "sub": claims.subject,
        "aud": claims.audience,
        "scope": claims.scope,
        "iat": claims.issued,
        "exp": claims.expires,
        "jti": claims.id,
    }
    if claims.nonce:
        payload["nonce"] = claims.nonce
    if claims.boot:
        payload |= {"boot": claims.boot, "up": claims.up}
    _claims(payload)
    token = jws.sign(payload, TYP, signer)
    if len(token) > MAX_TOKEN:
        raise TokenError("malformed", f"the token would have more than {MAX_TOKEN} characters")
    return token


def verify(
    token: str,
    issuer: Issuer,
    audience: str,
    clock: Clock,
    challenges: Callable[[str], float | None] = lambda _nonce: None,
) -> Claims:
    """What the token says, once it is known to be ``issuer``'s, for ``audience``, and fresh. Raises TokenError.

    ``challenges``: the age in seconds of a nonce that the caller made and that nobody has used; None for any other. The
    caller marks it as used when this returns. Asked only after the signature was found to be right.
    """
    try:
        found = jws.split(token, TYP, MAX_TOKEN)
    except jws.JwsError as error:
        raise TokenError("malformed", f"not a token: {error}") from error
    key = issuer.keys.get(found.kid)
    if key is None:
        fix = "get its current identity document, or ask for a new token"
        raise TokenError("unknown-key", f"signed by a key that is not one of {issuer.name}", fix)
    if not jws.verifies(key, found.signed, found.signature):
        raise TokenError("signature", "the signature is wrong")
    try:
        claims = _claims(jws.read(found.payload, MAX_TOKEN))
    except jws.JwsError as error:
        raise TokenError("malformed", f"not a token: {error}") from error
    if claims.issuer != issuer.name:
        raise TokenError("issuer", f"issued by {claims.issuer}, not by {issuer.name}")
    if claims.audience != audience:
        raise TokenError("audience", f"is for {claims.audience}, not for {audience}")
    _check_fresh(claims, clock, challenges)
    return claims


def _check_fresh(claims: Claims, clock: Clock, challenges: Callable[[str], float | None]) -> None:
    lifetime = claims.expires - claims.issued
    again = "ask for a new token"
    if claims.nonce:
        age = challenges(claims.nonce)
        if age is None:
            raise TokenError("challenge", "answers no challenge that is open here", "ask for a challenge first")
        if not 0 <= age < lifetime:
            raise TokenError("expired", f"its challenge is {age:.0f} s old, it lasts {lifetime} s", again)
    elif claims.boot and claims.boot == clock.boot:
        age = clock.up - claims.up
        if age < -1:
            raise TokenError("early", "issued later than now, in the same boot", again)
        if age >= lifetime:
            raise TokenError("expired", f"issued {age:.0f} s ago, it lasts {lifetime} s", again)
    elif clock.doubt:
        if claims.expires + LEEWAY <= clock.floor:
            raise TokenError("expired", "it ended before a time that has certainly passed", again)
        fix = "ask for one that is bound to a challenge"
        raise TokenError("clock", f"cannot tell whether it is still valid: {clock.doubt}", fix)
    elif clock.wall >= claims.expires + LEEWAY:
        raise TokenError("expired", f"it ended {clock.wall - claims.expires:.0f} s ago", again)
    elif clock.wall < claims.issued - LEEWAY:
        fix = "set the clock of its issuer, or ask for one that is bound to a challenge"
        raise TokenError("early", f"issued {claims.issued - clock.wall:.0f} s from now", fix)


def _claims(payload: Mapping[str, Any]) -> Claims:
    """The claims in a payload; unknown ones are ignored (RFC 7519, section 4). Raises TokenError."""
    issued, expires = _whole(payload, "iat"), _whole(payload, "exp")
    if not 0 < expires - issued <= MAX_LIFETIME:
        raise TokenError("lifetime", f"does not last from 1 to {MAX_LIFETIME} s")
    bound = "boot" in payload
    return Claims(
        issuer=_word(payload, "iss", MAX_WORD),
        subject=_word(payload, "sub", MAX_WORD),
        audience=_word(payload, "aud", MAX_WORD),
        scope=_word(payload, "scope", MAX_SCOPE, empty=True),
        issued=issued,
        expires=expires,
        id=_word(payload, "jti", MAX_WORD),
        nonce=_word(payload, "nonce", MAX_WORD) if "nonce" in payload else "",
        boot=_word(payload, "boot", MAX_WORD) if bound else "",
        up=_whole(payload, "up") if bound else 0,
    )


def _word(payload: Mapping[str, Any], name: str, most: int, *, empty: bool = False) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or len(value) > most or not value.isprintable() or not (value or empty):
        raise TokenError("malformed", f"{name} is not 1 to {most} printable characters")
    return value


def _whole(payload: Mapping[str, Any], name: str) -> int:
    value = payload.get(name)
    if type(value) is not int or not 0 <= value <= _LATEST:
        raise TokenError("malformed", f"{name} is not a whole number of seconds")
    return value
