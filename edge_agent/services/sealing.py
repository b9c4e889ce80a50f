"""Keys at rest that are worth nothing on another machine: encrypted by a secret that systemd unseals at each boot.

The secret is a credential of the agent's unit (systemd.exec(5) LoadCredentialEncrypted=, systemd-creds(1)), bound to
the machine's TPM or to a key of its system disk. It encrypts the key files, instead of being the key itself, because a
credential cannot be changed while the unit runs, and keys rotate.

systemd gives a credential to the processes of the unit that asked for it, and gives it to the unit's user alone: a
service that the agent starts has another user, and does not get the agent's environment. So a drop-in of
edge-agent.service copies it for the service to the run directory, which is memory: systemd/README.md. Looked for in
this order: $CREDENTIALS_DIRECTORY/edge-agent.NAME (a service that systemd itself starts, or whose profile names the
directory), RUN_DIR/credentials/NAME.

Without one the keys are in plain files of mode 0600. Key files that are sealed can then not be read, which is said.
"""

from __future__ import annotations

import base64
import os
import stat

from .errors import StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SECRET = 4096  # bytes of a credential
MIN_SECRET = 16
NONCE, OVERHEAD = 24, 40  # bytes: XSalsa20-Poly1305 (libsodium secretbox) adds a nonce and a MAC of 16


class Sealing:
    """Encrypts the text of keys, or does not: ``active``. ``where``: the file of the secret, or where it was sought."""

    __slots__ = ("_key", "active", "where")

    def __init__(self, secret: bytes | None, where: str) -> None:
        self.active = secret is not None
        self.where = where
        self._key = _derive(secret or b"") if self.active else b""

    def seal(self, text: str, nonce: bytes) -> str:
        """``text`` encrypted, in base64. ``nonce``: 24 random bytes."""
        import nacl.bindings

        boxed = nacl.bindings.crypto_secretbox(text.encode(), nonce, self._key)
        return base64.b64encode(nonce + boxed).decode()

    def open(self, sealed: str) -> str:
        """The text that ``seal`` encrypted. Raises ValueError when it was not by this secret."""
        import nacl.bindings
        from nacl.exceptions import CryptoError

        data = base64.b64decode(sealed, validate=True)
        try:
            return nacl.bindings.crypto_secretbox_open(data[NONCE:], data[:NONCE], self._key).decode()
        except CryptoError as error:
            raise ValueError("not sealed by this secret") from error


def _derive(secret: bytes) -> bytes:
    import nacl.bindings  # hashlib would bring OpenSSL, 3 MiB

    key: bytes = nacl.bindings.crypto_generichash_blake2b_salt_personal(
        secret, digest_size=32, person=b"edge-agent keys"
    )
    return key


def length(plain: int) -> int:
    """Characters of ``plain`` ASCII ones when they are sealed."""
    return (plain + OVERHEAD + 2) // 3 * 4


def places(name: str, run_dir: str, environ: Mapping[str, str]) -> list[str]:
    """Where the secret of service ``name`` may be; ``run_dir`` is the service's own: RUN_DIR/bundled/NAME."""
    given = environ.get("CREDENTIALS_DIRECTORY", "")
    base = os.path.dirname(os.path.dirname(run_dir))
    first = [os.path.join(given, f"edge-agent.{name}")] if os.path.isabs(given) else []
    return [*first, os.path.join(base, "credentials", name)]


def find(name: str, run_dir: str, environ: Mapping[str, str]) -> Sealing:
    """The secret of service ``name``, or none. Raises StartError for one that cannot be read, or is open to others."""
    tried = places(name, run_dir, environ)
    for path in tried:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise StartError(
                f"cannot read the credential {path}: {error.strerror}; fix: chown {os.geteuid()} {path}"
            ) from error
        try:
            _check(path, os.fstat(descriptor))
            secret = os.read(descriptor, MAX_SECRET + 1)
        finally:
            os.close(descriptor)
        if not MIN_SECRET <= len(secret) <= MAX_SECRET:
            raise StartError(
                f"cannot use the credential {path}: {len(secret)} bytes; fix: one of {MIN_SECRET} to {MAX_SECRET} bytes"
            )
        return Sealing(secret, path)
    return Sealing(None, " or ".join(tried))


def _check(path: str, found: os.stat_result) -> None:
    """Group bits of a credential are the mask of systemd's ACL for the unit's user: they may say read."""
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o027:
        raise StartError(
            f"cannot trust the credential {path}: others have access to it; fix: chown {os.geteuid()} {path}, chmod 400"
        )
