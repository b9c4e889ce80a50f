"""SHA-256 (FIPS 180-4) for what is small, without OpenSSL: hashlib brings it along, 3.4 MiB in every process.

This is CPython's own, as its ``random`` module uses it: seven times slower on long inputs, no slower on short ones.
What hashes blobs imports hashlib when there is one.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import hashlib

_OWN = __import__("_sha2" if sys.version_info >= (3, 12) else "_sha256")


def sha256(data: bytes = b"") -> hashlib._Hash:
    """As ``hashlib.sha256``."""
    made: hashlib._Hash = _OWN.sha256(data)
    return made
