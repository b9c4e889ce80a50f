"""Secret keys on disk: one line of text, mode 0600, never changed in place, refused when others could read it.

KIND SECRET CREATED\n             CREATED: seconds since 1970, 12 digits; a machine without a clock may say 1970
KIND-sealed SEALED CREATED\n      encrypted, see ``sealing``
"""

from __future__ import annotations

import errno
import os
import stat

from ..host.journal import sync_directory
from ..records import Record
from . import sealing
from .errors import StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Secret(Record):
    """A secret key as text, and when it was made (seconds since 1970)."""

    text: str
    created: int


PLAIN = sealing.Sealing(None, "")


def load_or_make(
    path: str, kind: str, length: int, make: Callable[[], str], now: float, seal: sealing.Sealing = PLAIN
) -> Secret:
    """The key in ``path``; a new one from ``make`` when there is no file. Raises StartError.

    ``kind`` begins the line; a secret has exactly ``length`` characters without blanks. The caller holds the lock of
    the directory, so nobody else makes the same file.
    """
    secret = load(path, kind, length, seal)
    if secret is None:
        secret = Secret(make(), int(now))
        write(path, kind, secret, seal)
    return secret


def load_pair(path: str, kind: str, length: int, make: Callable[[], str], now: float) -> tuple[Secret, Secret]:
    """The key in ``path``, and the one that will follow it; each made at first use. Raises StartError."""
    return load_or_make(path, kind, length, make, now), load_or_make(_next(path), kind, length, make, now)


def advance(path: str) -> None:
    """The key that follows takes the place of the one in ``path``. Raises OSError; then nothing has changed."""
    os.rename(_next(path), path)
    sync_directory(os.path.dirname(path))


def _next(path: str) -> str:
    base, extension = os.path.splitext(path)
    return f"{base}-next{extension}"


def load(path: str, kind: str, length: int, seal: sealing.Sealing = PLAIN) -> Secret | None:
    """The key in ``path``, None when there is no file. A plain one is sealed where it can be. Raises StartError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else (error.strerror or str(error))
        raise StartError(f"cannot read the key {path}: {why}; fix: a file of this user with mode 0600") from error
    try:
        _check(path, os.fstat(descriptor), os.geteuid())
        line = os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
    if line.startswith(f"{kind}-sealed ".encode()):
        sealed = _parse(path, line, f"{kind}-sealed", sealing.length(length))
        return Secret(_open(path, sealed.text, length, seal), sealed.created)
    secret = _parse(path, line, kind, length)
    if seal.active:
        write(path, kind, secret, seal)
    return secret


def write(path: str, kind: str, secret: Secret, seal: sealing.Sealing = PLAIN) -> None:
    """Put the key into ``path``, in the place of what is there, sealed where it can be. Raises StartError."""
    text = secret.text
    if seal.active:
        kind, text = f"{kind}-sealed", seal.seal(text, os.urandom(sealing.NONCE))
    try:
        replace(path, f"{kind} {text} {secret.created:012d}\n".encode(), 0o600)
    except OSError as error:
        raise StartError(
            f"cannot write the key {path}: {error.strerror}; fix: space and rights on {os.path.dirname(path)}"
        ) from error


def replace(path: str, data: bytes, mode: int) -> None:
    """All or nothing, also over a power cut: a new file, fsync, rename, fsync of the directory. Raises OSError."""
    temporary = path + ".new"
    if os.path.lexists(temporary):
        os.unlink(temporary)  # left by a power cut in the line below
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)  # whatever the umask is
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, path)
    sync_directory(os.path.dirname(path))


def _open(path: str, sealed: str, length: int, seal: sealing.Sealing) -> str:
    if not seal.active:
        raise StartError(
            f"cannot open the key {path}: it is sealed, and there is no credential {seal.where or 'for it'}; "
            "fix: give edge-agent.service its credential (systemd/README.md), or restore an unsealed key from a backup"
        )
    try:
        text = seal.open(sealed)
    except ValueError as error:
        raise StartError(
            f"cannot open the key {path}: not sealed by the credential {seal.where}; "
            "fix: restore the credential that it was sealed by"
        ) from error
    if len(text) != length:
        raise StartError(f"cannot read the key {path}: not {length} characters; fix: restore it from a backup")
    return text


def _check(path: str, found: os.stat_result, uid: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise StartError(f"cannot read the key {path}: not a regular file; fix: move it away, a new key will be made")
    if found.st_uid != uid:
        raise StartError(f"cannot trust the key {path}: it belongs to uid {found.st_uid}; fix: chown {uid} {path}")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise StartError(f"cannot trust the key {path}: others have access (mode {mode:04o}); fix: chmod 600 {path}")


def _parse(path: str, line: bytes, kind: str, length: int) -> Secret:
    size = len(kind) + 1 + length + 1 + 12 + 1
    if len(line) != size:
        raise StartError(
            f"cannot read the key {path}: {len(line)} bytes instead of {size}; fix: restore it from a backup"
        )
    words = line.decode("ascii", "replace").split()
    if len(words) != 3 or words[0] != kind or len(words[1]) != length or not words[2].isdigit() or line[-1:] != b"\n":
        raise StartError(f"cannot read the key {path}: not '{kind} SECRET CREATED'; fix: restore it from a backup")
    return Secret(words[1], int(words[2]))
