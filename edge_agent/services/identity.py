"""The node's identity: keys that never leave this process, what is signed by them, and the public document of them.

    public    {}                   -> {document: {node_id, ed25519: base64, created}, key: 32 bytes}
    document  {}                   -> {document: text}, signed: ``documents``
    sign      {data}               -> {signature: 64 bytes, key: 32 bytes}
    verify    {data, signature, key?}  -> {valid: bool}; without ``key``: by this node
    token     {audience, subject?, scope?, lifetime?, nonce?}  -> {token, expires, doubt}: ``tokens``; seconds
    challenge {}                   -> {nonce, lifetime}: to be answered by a token, once
    check     {token, audience, document?, pinned?}  -> {valid, claims, code, why, fix}; without ``document`` a token of
                                      this node; with it of the one that has had the key ``pinned`` (32 bytes)
    rotate    {overlap?}           -> {document}; overlap in seconds
    revoke    {key, reason?}       -> {document}
    enrol     {service, keys: [Z85]}  -> {document}; the CURVE keys of a service of this node

A signature of ``sign`` is over the bytes as given, so anyone can check it with any Ed25519 library; what looks like a
token, a document or a part of one is refused there. Whoever may connect (root, the service's user, its group, keys of
``clients``) can so sign anything as this node, and get tokens of it. Only root and the service's user can change keys;
user edge-agent-NAME, those of service NAME (``callers``).
"""

from __future__ import annotations

import base64
import os
import pwd
import time

from ..callers import EMBEDDED, USER
from ..model import RELEASED
from ..peers.wire import MAX_NAME
from . import documents, jws, keystore, metrics, rotation, sealing, tokens
from .challenges import LIFETIME as CHALLENGE_LIFETIME
from .challenges import Challenges
from .errors import RefusedError, StartError
from .log import WARNING, log
from .runtime import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..peers.wire import Message
    from .options import Options
    from .requests import Operation, Request
    from .runtime import Runtime

MAX_DATA = 64 * 1024  # bytes to sign; sign the digest of what is longer
OVERLAP = 86_400  # seconds that a rotated key stays valid
OVERLAPS = (tokens.MAX_LIFETIME + 2 * tokens.LEEWAY, 90 * 86_400)  # shortest: no token may outlive its key
RESERVED = (jws.BEGINNING, documents.LINK)
LOOK = 3600.0  # seconds between two looks whether an overlap is over


def _clock(floor: float) -> tokens.Clock:
    from . import clock  # ctypes, not before somebody asks for the time

    return tokens.Clock(clock.wall(), clock.doubt(floor), floor, clock.boot(), clock.steady())


class Identity(Service):
    """The service. ``clock`` tells the time, given one that has certainly passed."""

    name = "identity"
    request_limit = MAX_DATA + 4096
    clock: Callable[[float], tokens.Clock] = staticmethod(_clock)

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._store: keystore.KeyStore
        self._seal = sealing.Sealing(None, "")
        self._issued_tokens = 0
        self._checked: dict[str, int] = {}  # result -> how often; results are 'valid' and the codes of TokenError
        self._challenges = Challenges(os.urandom(32))
        self._calm = self._due = 0.0  # monotonic: since when no key was rotated; when to look at overlaps

    def open(self, runtime: Runtime) -> None:
        """Load the keys, or make them at the first start."""
        self._seal = sealing.find(self.name, self.options.run_dir, os.environ)
        directory, node = self.options.data_dir, self.options.node_id
        self._store = keystore.KeyStore(directory, self._seal, node, time.time(), self._issued)
        where = f"sealed by {self._seal.where}" if self._seal.active else "in plain files of mode 0600"
        log(self.name, f"{self._store.document.node}, key {jws.encode(self._store.current.key)}, keys are {where}")
        self._calm = self._due = time.monotonic()
        if self.options.port is not None:
            runtime.curve_key("curve.key")
            try:
                self._publish(self.name, next(iter(runtime.curve_keys.values())))
            except RefusedError as error:
                log(self.name, f"its CURVE key is not in the identity document: {error}", WARNING)

    def operations(self) -> Mapping[str, Operation]:
        """As listed above."""
        return {
            "public": self._public_document,
            "document": lambda _request: self._document(),
            "sign": self._sign,
            "verify": self._verify,
            "token": self._token,
            "challenge": self._challenge,
            "check": self._check,
            "rotate": self._rotate,
            "revoke": self._revoke,
            "enrol": self._enrol,
        }

    def details(self) -> Message:
        """Who this node is."""
        document = self._store.document
        return {
            "node_id": document.node,
            "sequence": document.sequence,
            "sealed": self._seal.active,
            "credential": self._seal.where,
            "doubt": self._time().doubt,
        }

    def metrics(self) -> Sequence[metrics.Metric]:
        """Its document, and what became of tokens."""
        document = self._store.document
        return (
            metrics.gauge("identity_document_sequence", "Changes of the identity document.", document.sequence),
            metrics.gauge("identity_previous_keys", "Rotated keys that are still valid.", len(document.previous)),
            metrics.gauge("identity_clock_believed", "1: the wall clock is believed.", not self._time().doubt),
            metrics.gauge("identity_keys_sealed", "1: the key files are encrypted.", self._seal.active),
            metrics.counter("identity_tokens_issued_total", "Tokens that were made.", self._issued_tokens),
            metrics.Metric(
                "identity_tokens_checked_total",
                metrics.COUNTER,
                "Tokens that were checked, by what was found.",
                tuple(({"result": result}, count) for result, count in sorted(self._checked.items())),
            ),
        )

    def deadline(self) -> float | None:
        """The next look whether an overlap is over; none without one."""
        return self._due if self._store.document.previous else None

    def tick(self, now: float) -> None:
        """Drop previous keys whose time is over: by a clock that is believed, or by so long a run of this process."""
        self._due = now + LOOK
        clock = self._time()
        rested = now - self._calm
        over = [
            each.key
            for each in self._store.document.previous
            if (each.until and not clock.doubt and clock.wall >= each.until) or rested >= OVERLAP
        ]
        document = rotation.retire(self._store.document, over, self._issued_at(clock))
        if document is self._store.document:
            return
        try:
            self._store.change(document)
        except StartError as error:
            log(self.name, str(error), WARNING)  # and tries again
            return
        log(self.name, f"{len(over)} previous keys are no longer valid")

    # -- time

    def _time(self) -> tokens.Clock:
        """Its own documents were not made later than now."""
        return self.clock(max(RELEASED, self._store.document.issued))

    def _issued(self) -> int:
        return self._issued_at(self.clock(RELEASED))

    @staticmethod
    def _issued_at(clock: tokens.Clock) -> int:
        return 0 if clock.doubt else int(clock.wall)

    # -- operations

    def _public_document(self, _request: Request) -> Message:
        key = self._store.current.key
        encoded = base64.b64encode(key).decode()
        document = {"node_id": self._store.document.node, "ed25519": encoded, "created": self._store.created}
        return {"document": document, "key": key}

    def _document(self) -> Message:
        return {"document": self._store.text}

    def _sign(self, request: Request) -> Message:
        data = request.data("data", MAX_DATA)
        if data.startswith(RESERVED):
            raise RefusedError("reserved", "that is how tokens and identity documents begin", "sign its digest")
        return {"signature": self._store.current.sign(data), "key": self._store.current.key}

    def _verify(self, request: Request) -> Message:
        data = request.data("data", MAX_DATA)
        signature = request.exact("signature", jws.SIGNATURE)
        key = request.exact("key", jws.KEY, self._store.current.key)
        return {"valid": jws.verifies(key, data, signature)}

    def _token(self, request: Request) -> Message:
        clock, node = self._time(), self._store.document.node
        issued = int(clock.wall)
        lifetime = request.whole("lifetime", 1, tokens.MAX_LIFETIME, tokens.LIFETIME)
        claims = tokens.Claims(
            issuer=node,
            subject=_text(request, "subject", tokens.MAX_WORD, node),
            audience=_text(request, "audience", tokens.MAX_WORD),
            scope=_text(request, "scope", tokens.MAX_SCOPE, ""),
            issued=issued,
            expires=issued + lifetime,
            id=jws.encode(os.urandom(12)),
            nonce=_text(request, "nonce", tokens.MAX_WORD, ""),
            boot=clock.boot,
            up=int(clock.up),
        )
        try:
            token = tokens.issue(claims, self._store.current)
        except tokens.TokenError as error:
            raise RefusedError("bad-request", error.why, error.fix) from error
        self._issued_tokens += 1
        return {"token": token, "expires": claims.expires, "doubt": clock.doubt}

    def _challenge(self, _request: Request) -> Message:
        nonce = self._challenges.make(self._time().up, os.urandom(8))
        return {"nonce": nonce, "lifetime": CHALLENGE_LIFETIME}

    def _check(self, request: Request) -> Message:
        token = _text(request, "token", tokens.MAX_TOKEN)
        audience = _text(request, "audience", tokens.MAX_WORD)
        clock = self._time()
        document = self._of(request)
        try:
            claims = tokens.verify(
                token, document.issuer(clock), audience, clock, lambda nonce: self._challenges.age(nonce, clock.up)
            )
        except tokens.TokenError as error:
            self._checked[error.code] = self._checked.get(error.code, 0) + 1
            return {"valid": False, "code": error.code, "why": error.why, "fix": error.fix}
        if claims.nonce and not self._challenges.spend(claims.nonce, clock.up):
            raise RefusedError("busy", "too many challenges were answered lately", "try again in two minutes")
        self._checked["valid"] = self._checked.get("valid", 0) + 1
        return {"valid": True, "claims": dict(zip(claims._fields, claims, strict=True))}

    def _of(self, request: Request) -> documents.Document:
        """Whose token is to be checked."""
        if "document" not in request.message:
            return self._store.document
        try:
            document = documents.parse(_text(request, "document", documents.MAX_DOCUMENT))
            documents.follow(document, request.exact("pinned", jws.KEY))
        except documents.DocumentError as error:
            raise RefusedError(error.code, f"the document is refused: {error.why}", "get its current one") from error
        return document

    def _rotate(self, request: Request) -> Message:
        self._owner(request)
        overlap = request.whole("overlap", *OVERLAPS, OVERLAP)
        clock = self._time()
        issued = self._issued_at(clock)
        return self._change(
            lambda fresh: rotation.rotate(
                self._store.document, self._store.after, fresh, issued and issued + overlap, issued
            )
        )

    def _revoke(self, request: Request) -> Message:
        self._owner(request)
        key, reason = _text(request, "key", jws.KEY_TEXT), _text(request, "reason", documents.MAX_REASON, "")
        issued = self._issued_at(self._time())
        store = self._store
        return self._change(
            lambda fresh: rotation.revoke(store.document, key, reason, store.current, store.after, fresh, issued)
        )

    def _enrol(self, request: Request) -> Message:
        service = _text(request, "service", MAX_NAME)
        self._owner(request, service, EMBEDDED)
        keys = request.message.get("keys")
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise RefusedError("bad-request", "keys is not a list of text")
        self._publish(service, tuple(keys))
        return self._document()

    def _publish(self, service: str, keys: tuple[str, ...]) -> None:
        """The CURVE keys of a service, in the document. Raises RefusedError."""
        try:
            document = rotation.enrol(self._store.document, service, keys, self._issued_at(self._time()))
            if document is not self._store.document:
                self._store.change(document)
        except (rotation.RotationError, documents.DocumentError) as error:
            raise _refused(error) from error
        except StartError as error:
            raise RefusedError("failed", str(error)) from error

    def _change(self, changed: Callable[[jws.Signer], documents.Document]) -> Message:
        """What ``changed`` makes of the document and a fresh key, on disk."""
        try:
            fresh = self._store.fresh()
            self._store.change(changed(fresh), fresh)
        except (rotation.RotationError, documents.DocumentError) as error:
            raise _refused(error) from error
        except StartError as error:
            raise RefusedError("failed", str(error)) from error
        self._calm = self._due = time.monotonic()
        document = self._store.document
        log(self.name, f"identity document {document.sequence}, key {jws.encode(document.current)}")
        return self._document()

    def _owner(self, request: Request, *services: str) -> None:
        allowed = {f"uid:{os.geteuid()}", "uid:0"}
        for service in services:
            try:
                allowed.add(f"uid:{pwd.getpwnam(USER.format(service)).pw_uid}")
            except KeyError:
                pass  # no such user: services run as the agent's
        if request.user not in allowed:
            raise RefusedError("denied", f"{request.user} may not change keys", "be root")


def _refused(error: rotation.RotationError | documents.DocumentError) -> RefusedError:
    return RefusedError(error.code, error.why, getattr(error, "fix", ""))


def _text(request: Request, key: str, most: int, default: str | None = None) -> str:
    value = request.message.get(key, default)
    if not isinstance(value, str) or len(value) > most or not value.isprintable() or (not value and default != ""):
        raise RefusedError("bad-request", f"{key} is not 1 to {most} printable characters")
    return value
