"""The node's identity: an Ed25519 key (RFC 8032) that never leaves this process.

    public {}                          -> {document: {node_id, ed25519: base64, created}, key: 32 bytes}
    sign   {data}                      -> {signature: 64 bytes, key: 32 bytes}
    verify {data, signature, key?}     -> {valid: bool}; without ``key``: by this node

A signature is over the bytes as given, so anyone can check it with any Ed25519 library. Whoever may connect (root, the
service's user, its group) can therefore sign anything as this node.
"""

from __future__ import annotations

import base64
import os
import time

import nacl.bindings
from nacl.exceptions import BadSignatureError

from ..peers.wire import MAX_NAME
from . import keyfile
from .errors import StartError
from .runtime import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..peers.wire import Message
    from .options import Options
    from .requests import Operation, Request
    from .runtime import Runtime

SEED, KEY, SIGNATURE = 32, 32, 64  # bytes, RFC 8032
MAX_DATA = 64 * 1024  # bytes to sign; sign the digest of what is longer
KEY_KIND = "ed25519"


def _new_seed() -> str:
    return base64.b64encode(os.urandom(SEED)).decode()


class Identity(Service):
    """The service."""

    name = "identity"
    request_limit = MAX_DATA + 4096

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._public = self._secret = b""
        self._created = 0

    def open(self, _runtime: Runtime) -> None:
        """Load the key, or make it at the first start."""
        path = os.path.join(self.options.data_dir, "identity.key")
        secret = keyfile.load_or_make(path, KEY_KIND, 44, _new_seed, time.time())
        try:
            seed = base64.b64decode(secret.text, validate=True)
        except ValueError as error:
            raise StartError(f"cannot read the key {path}: not base64; fix: restore it from a backup") from error
        if len(seed) != SEED:
            raise StartError(f"cannot read the key {path}: not {SEED} bytes; fix: restore it from a backup")
        self._public, self._secret = nacl.bindings.crypto_sign_seed_keypair(seed)
        self._created = secret.created

    def operations(self) -> Mapping[str, Operation]:
        """public, sign, verify."""
        return {"public": self._public_document, "sign": self._sign, "verify": self._verify}

    def details(self) -> Message:
        """Who this node is."""
        return {"node_id": self._node_id()}

    def _node_id(self) -> str:
        return self.options.node_id or f"node-{self._public[:8].hex()}"[:MAX_NAME]

    def _public_document(self, _request: Request) -> Message:
        encoded = base64.b64encode(self._public).decode()
        document = {"node_id": self._node_id(), "ed25519": encoded, "created": self._created}
        return {"document": document, "key": self._public}

    def _sign(self, request: Request) -> Message:
        data = request.data("data", MAX_DATA)
        return {"signature": nacl.bindings.crypto_sign(data, self._secret)[:SIGNATURE], "key": self._public}

    def _verify(self, request: Request) -> Message:
        data = request.data("data", MAX_DATA)
        signature = request.exact("signature", SIGNATURE)
        key = request.exact("key", KEY, self._public)
        try:
            nacl.bindings.crypto_sign_open(signature + data, key)
        except BadSignatureError:
            return {"valid": False}
        return {"valid": True}
