"""Signed notes, the heads of logs in them, and what witnesses say of those: C2SP signed-note, tlog-checkpoint,
tlog-cosignature (v1, Ed25519). Pure; bytes in, bytes out.

    example.com/log            origin: which log
    20852163                   its size, entries
    CsUYapGGPo4dkMgI...        the root of its tree, base64
                               (an empty line)
    - example.com/log Az3g...  one line per signature; the dash is an em dash: name, base64 of key hash and signature

Nothing in a note is believed before a key that was pinned beforehand has signed it. Whatever is wrong with the bytes,
the key or the signature, the only error is NoteError.
"""

from __future__ import annotations

import binascii

from .digests import sha256
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

ED25519 = 0x01
"""Signature type: Ed25519 (RFC 8032) over the text."""
COSIGNATURE = 0x04
"""Signature type: a witness's, over the text and the time at which it was made."""

MAX_NOTE = 128 * 1024  # bytes; 16 signatures, which every reader must take, are up to 5 kB each
MAX_SIGNATURES = 100
MAX_NAME = 255  # bytes of the name of a log or of a key of ours; others' names may be as long as they like
MAX_SIZE = 2**63 - 1  # entries of a log; also the last second of a cosignature
ROOT = 32  # bytes, SHA-256

_KEY, _SEED, _SIGNATURE, _TIME = 32, 32, 64, 8  # bytes, RFC 8032; a cosignature begins with its time
_DASH = "\u2014 "
_CONTROLS = bytes({*range(32)} - {10})  # ASCII, without the newline
_HEX = frozenset("0123456789abcdefABCDEF")


class NoteError(ValueError):
    """Not a note, not a key, not signed by whom it should be. The text says why."""


class Signature(Record):
    """One line of signature: by whom, and which bytes. Not yet believed."""

    name: str
    key_hash: int  # the first four bytes of a hash of name, algorithm and key
    data: bytes

    def line(self) -> str:
        """As it stands in a note, with its newline."""
        return f"{_DASH}{self.name} {_encode(self.key_hash.to_bytes(4, 'big') + self.data)}\n"


class Note(Record):
    """A text, newline included, and the signatures under it. Not yet believed."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        """As bytes, which ``parse`` reads."""
        return "".join([self.text, "\n", *(signature.line() for signature in self.signatures)]).encode()


def parse(data: bytes) -> Note:
    """The note in ``data``; who signed it is for Verifier to say. Raises NoteError."""
    if not _is(data, bytes) or len(data) > MAX_NOTE:
        raise NoteError(f"a note is at most {MAX_NOTE} bytes")
    _check_characters(data)
    try:
        whole = data.decode()
    except UnicodeDecodeError:
        raise NoteError("not UTF-8") from None
    text, separator, lines = whole.rpartition("\n\n")
    if not separator:
        raise NoteError("no empty line between text and signatures")
    if not lines.endswith("\n"):
        raise NoteError("no newline at the end" if lines else "no signatures")
    each = lines[:-1].split("\n")
    if len(each) > MAX_SIGNATURES:
        raise NoteError(f"more than {MAX_SIGNATURES} signatures")
    return Note(text + "\n", tuple(_signature(line) for line in each))


def _signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not _is_name(name):
        raise NoteError("a line after the text is no signature")
    data = _decode(encoded, "a signature")
    if len(data) < 5:
        raise NoteError("a signature is too short")
    return Signature(name, int.from_bytes(data[:4], "big"), data[4:])


class Verifier(Record):
    """A public key that may sign notes, by the name it signs with. ``parse`` and ``of`` check; the record does not."""

    name: str
    key_hash: int
    algorithm: int  # ED25519 or COSIGNATURE
    key: bytes  # 32 bytes, RFC 8032

    @staticmethod
    def of(name: str, key: bytes, algorithm: int = ED25519) -> Verifier:
        """The verifier of this public key. Raises NoteError."""
        if not _is_name(name) or len(name.encode()) > MAX_NAME:
            raise NoteError("the name of a key is empty, too long, or has blanks or '+'")
        if algorithm not in (ED25519, COSIGNATURE):
            raise NoteError("a key of another kind than Ed25519 signatures (1) and cosignatures (4)")
        if not _is(key, bytes) or len(key) != _KEY:
            raise NoteError(f"an Ed25519 key is {_KEY} bytes")
        digest = sha256(name.encode() + b"\n" + bytes((algorithm,)) + key).digest()
        return Verifier(name, int.from_bytes(digest[:4], "big"), algorithm, key)

    @staticmethod
    def parse(vkey: str) -> Verifier:
        """The verifier written as NAME+HASH+KEY: eight hexadecimal digits, base64. Raises NoteError."""
        if not _is(vkey, str) or len(vkey) > MAX_NAME + 64:
            raise NoteError("not a verifier key")
        name, _, rest = vkey.partition("+")
        digits, _, encoded = rest.partition("+")
        if len(digits) != 8 or not _HEX.issuperset(digits):
            raise NoteError("a verifier key is NAME+HASH+KEY, HASH eight hexadecimal digits")
        data = _decode(encoded, "the key")
        if not data:
            raise NoteError("a verifier key without a key")
        verifier = Verifier.of(name, data[1:], data[0])
        if verifier.key_hash != int(digits, 16):
            raise NoteError("the hash is not the one of this name and key")
        return verifier

    def vkey(self) -> str:
        """As text, which ``parse`` reads."""
        return f"{self.name}+{self.key_hash:08x}+{_encode(bytes((self.algorithm,)) + self.key)}"

    def verifies(self, note: Note) -> bool:
        """Has this key signed the note? False as well when one of its signatures is wrong: then none is to be believed.

        Signatures of other keys do not matter, those that share only the name or the hash included.
        """
        own = [each.data for each in note.signatures if (each.name, each.key_hash) == (self.name, self.key_hash)]
        return bool(own) and all(self._verifies(note.text, data) for data in own)

    def time(self, note: Note) -> int:
        """When the witness with this key last cosigned the note, seconds since 1970; ask ``verifies`` first.

        Raises NoteError when it did not.
        """
        own = [each.data for each in note.signatures if (each.name, each.key_hash) == (self.name, self.key_hash)]
        if self.algorithm != COSIGNATURE or not own:
            raise NoteError(f"not cosigned by {self.name}")
        return max(int.from_bytes(data[:_TIME], "big") for data in own)

    def _verifies(self, text: str, data: bytes) -> bool:
        if self.algorithm == ED25519:
            return _is_signed(self.key, text.encode(), data)
        time = int.from_bytes(data[:_TIME], "big")
        return time <= MAX_SIZE and _is_signed(self.key, _cosigned(time, text), data[_TIME:])


class Signer:
    """A key that signs notes. ``seed``: 32 secret bytes, RFC 8032. Raises NoteError."""

    def __init__(self, name: str, seed: bytes, algorithm: int = ED25519) -> None:
        if not _is(seed, bytes) or len(seed) != _SEED:
            raise NoteError(f"the seed of an Ed25519 key is {_SEED} bytes")
        import nacl.bindings

        public, self._secret = nacl.bindings.crypto_sign_seed_keypair(seed)
        self.verifier = Verifier.of(name, public, algorithm)

    def sign(self, text: str) -> bytes:
        """A note with this text, which ends with a newline, and this signature. Raises NoteError."""
        if self.verifier.algorithm != ED25519:
            raise NoteError("a witness cosigns; it does not sign")
        return Note(text, (self._signature(self._sign(_check_text(text))),)).encode()

    def cosign(self, note: Note, time: int) -> Signature:
        """What this witness adds under the head of a log, at ``time``, seconds since 1970. Raises NoteError.

        It says: of this log, no larger tree that is consistent with all I saw of it is known to me. To have checked
        that is the caller's part.
        """
        if self.verifier.algorithm != COSIGNATURE or not 0 <= time <= MAX_SIZE:
            raise NoteError("a cosignature needs the key of a witness, and a time")
        Checkpoint.parse(note.text)
        return self._signature(time.to_bytes(_TIME, "big") + self._sign(_cosigned(time, note.text)))

    def _signature(self, data: bytes) -> Signature:
        return Signature(self.verifier.name, self.verifier.key_hash, data)

    def _sign(self, message: bytes) -> bytes:
        import nacl.bindings

        return bytes(nacl.bindings.crypto_sign(message, self._secret)[:_SIGNATURE])


class Checkpoint(Record):
    """The head of a log: how many entries it has, and the root of their tree."""

    origin: str  # the log's name
    size: int
    root: bytes  # 32 bytes
    extensions: tuple[str, ...] = ()  # further lines of the text, which mean nothing here

    @staticmethod
    def parse(text: str) -> Checkpoint:
        """The checkpoint in the text of a note. Raises NoteError."""
        _check_text(text)
        lines = text[:-1].split("\n")
        if len(lines) < 3 or not all(lines):
            raise NoteError("a checkpoint is three lines or more, none of them empty")
        origin, size, encoded, *extensions = lines
        if not (size.isascii() and size.isdecimal()) or (size[0] == "0" and size != "0") or len(size) > 19:
            raise NoteError("the size of a log is a whole number")
        root = _decode(encoded, "the root")
        if int(size) > MAX_SIZE or len(root) != ROOT or len(origin.encode()) > MAX_NAME:
            raise NoteError(f"the root is not {ROOT} bytes, or the log larger than any, or its name")
        return Checkpoint(origin, int(size), root, tuple(extensions))

    def text(self) -> str:
        """As the text of a note, which ``parse`` reads. Raises NoteError."""
        text = "".join(f"{line}\n" for line in (self.origin, self.size, _encode(self.root), *self.extensions))
        if Checkpoint.parse(text) != self:
            raise NoteError("a line of the checkpoint has a newline")
        return text


def open_checkpoint(
    data: bytes,
    verifiers: Collection[Verifier],
    witnesses: Sequence[Verifier] = (),
    quorum: int = 0,
    origin: str | None = None,
) -> Checkpoint:
    """The checkpoint in a note that one of the log's ``verifiers`` and at least ``quorum`` witnesses have signed.

    ``origin``: which log it must be; a key may sign for several. Witnesses count by their keys: the same key under two
    names is one. A wrong signature of any of these keys spoils the note. Raises NoteError.
    """
    note = parse(data)
    if not _signers(note, verifiers):
        raise NoteError("not signed by a key of the log")
    checkpoint = Checkpoint.parse(note.text)
    if origin is not None and checkpoint.origin != origin:
        raise NoteError("the head of another log")
    count = len(_signers(note, witnesses))
    if count < quorum:
        raise NoteError(f"cosigned by {count} witnesses, {quorum} are wanted")
    return checkpoint


def _signers(note: Note, verifiers: Collection[Verifier]) -> set[bytes]:
    """The keys of those who have signed."""
    present = {(each.name, each.key_hash) for each in note.signatures}
    signed = set()
    for verifier in verifiers:
        if (verifier.name, verifier.key_hash) in present:
            if not verifier.verifies(note):
                raise NoteError(f"a wrong signature in the name of {verifier.name}")
            signed.add(verifier.key)
    return signed


def _cosigned(time: int, text: str) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _is_signed(key: bytes, message: bytes, signature: bytes) -> bool:
    if len(signature) != _SIGNATURE:
        return False
    import nacl.bindings
    from nacl.exceptions import BadSignatureError

    try:
        nacl.bindings.crypto_sign_open(signature + message, key)
    except BadSignatureError:
        return False
    return True


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind)


def _check_characters(data: bytes) -> None:
    if len(data.translate(None, _CONTROLS)) != len(data):
        raise NoteError("a control character")


def _check_text(text: str) -> bytes:
    if not _is(text, str) or not text.endswith("\n") or len(text) > MAX_NOTE // 2:
        raise NoteError("the text of a note ends with a newline, and is not too long")
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise NoteError("not UTF-8") from None
    _check_characters(data)
    return data


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or not name or "+" in name or any(map(str.isspace, name)):
        return False
    return not any("\ud800" <= character <= "\udfff" for character in name)  # a surrogate has no UTF-8


def _encode(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _decode(text: str, what: str) -> bytes:
    """Base64 in its one form: no other text stands for the same bytes. Raises NoteError."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # not base64, or not even ASCII
        raise NoteError(f"{what} is not base64") from None
    if _encode(data) != text:
        raise NoteError(f"{what} is not base64 as it is written")
    return data
