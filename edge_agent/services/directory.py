"""A service's own directory: private, and used by one process at a time."""

from __future__ import annotations

import fcntl
import os

from .errors import StartError


def make(path: str) -> None:
    """Make ``path``, mode 0700, unless it is there; refuse one that others can write. Raises StartError."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.stat(path)
    except OSError as error:
        raise StartError(f"cannot make {path}: {error.strerror}; fix: make it, owned by uid {os.geteuid()}") from error
    if found.st_uid not in (0, os.geteuid()):
        raise StartError(f"cannot trust {path}: it belongs to uid {found.st_uid}; fix: chown {os.geteuid()} {path}")
    if found.st_mode & 0o022:
        raise StartError(f"cannot trust {path}: others can write to it; fix: chmod go-w {path}")


def lock(path: str, name: str) -> int:
    """A descriptor that holds ``path`` for this process until it ends. Raises StartError when another has it.

    libzmq would silently take over the socket of a second instance, and two would write the same files.
    """
    file = os.path.join(path, f"{name}.lock")
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StartError(f"cannot open {file}: {error.strerror}; fix: chown {os.geteuid()} {path}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StartError(
            f"cannot start {name}: process {holder} uses {path}; fix: stop it, or another data_dir"
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
