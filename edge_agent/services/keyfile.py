"""Secret keys on disk: one line of text, mode 0600, made once, never replaced, refused when others could read it.

KIND SECRET CREATED\n      CREATED: seconds since 1970, 12 digits; a machine without a clock may say 1970
"""

from __future__ import annotations

import errno
import os
import stat

from ..records import Record
from .errors import StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Secret(Record):
    """A secret key as text, and when it was made (seconds since 1970)."""

    text: str
    created: int


def load_or_make(path: str, kind: str, length: int, make: Callable[[], str], now: float) -> Secret:
    """The key in ``path``; a new one from ``make`` when there is no file. Raises StartError.

    ``kind`` begins the line; a secret has exactly ``length`` characters without blanks. The caller holds the lock of
    the directory, so nobody else makes the same file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        secret = Secret(make(), int(now))
        _write(path, f"{kind} {secret.text} {secret.created:012d}\n".encode())
        return secret
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else (error.strerror or str(error))
        raise StartError(f"cannot read the key {path}: {why}; fix: a file of this user with mode 0600") from error
    try:
        _check(path, os.fstat(descriptor), os.geteuid())
        line = os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
    return _parse(path, line, kind, length)


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


def _write(path: str, line: bytes) -> None:
    """All or nothing, also over a power cut: a new file, fsync, rename, fsync of the directory."""
    directory = os.path.dirname(path)
    temporary = path + ".new"
    try:
        if os.path.lexists(temporary):
            os.unlink(temporary)  # left by a power cut in the line below
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask is
            if os.write(descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
        sync_directory(directory)
    except OSError as error:
        raise StartError(
            f"cannot write the key {path}: {error.strerror}; fix: space and rights on {directory}"
        ) from error


def sync_directory(path: str) -> None:
    """Make renames in ``path`` survive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
