"""Blobs that are not here, from full peers: by the node service of this machine, one transfer for each.

The node's ``fetch`` gives pieces in order and hashes as they pass; here they are hashed as well, and become a blob only
when they have that hash. Pure but for the blob that is written; ``ask`` and the clock are handed in.
"""

from __future__ import annotations

from .errors import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..peers.wire import Message
    from .inventory import Incoming

PIECE = 256 * 1024  # bytes asked for at once; the most that the node passes on
MOST = 4  # transfers at once
MOST_LATER = 1024  # blobs to be fetched when there is nothing else to do
REST = 3600.0  # seconds until these are tried again when no peer could be asked
TRIES = 3  # of a blob from its beginning
STALLS = 5  # pauses in a row without a byte
PAUSE = 1.0  # seconds, doubled each time
_PASSING = ("busy", "pending", "timeout", "unavailable", "offline")
_WRONG = ("wrong-blob", "bad-request")  # bad-request: the node has forgotten the transfer, as by a restart


class _Transfer:
    __slots__ = ("due", "incoming", "size", "stalls", "tries")

    def __init__(self, due: float) -> None:
        self.due: float | None = due  # when to ask; None: the node is to answer
        self.tries = self.stalls = 0
        self.incoming: Incoming | None = None
        self.size = 0

    @property
    def offset(self) -> int:
        return self.incoming.written if self.incoming else 0


class Fetches:
    """``ask(token, args)`` sends one ``fetch``; its answer comes to ``answered`` or ``declined``, maybe from within.

    ``begin(size)`` makes an Incoming. ``done(key, error)`` is told what came of each transfer; None: it is here.
    """

    def __init__(
        self,
        ask: Callable[[int, Message], None],
        begin: Callable[[int], Incoming],
        done: Callable[[bytes, RefusedError | None], None],
    ) -> None:
        self._ask, self._begin, self._done = ask, begin, done
        self._transfers: dict[bytes, _Transfer] = {}
        self._asked: dict[int, bytes] = {}
        self._later: dict[bytes, None] = {}
        self._later_at = 0.0
        self._last = 0
        self.fetched = self.failed = self.bytes = 0

    def __len__(self) -> int:
        return len(self._transfers)

    def progress(self, key: bytes) -> tuple[int, int] | None:
        """Bytes of the blob that are here, and all; None: it is not being fetched."""
        transfer = self._transfers.get(key)
        return None if transfer is None else (transfer.offset, transfer.size)

    def begin(self, key: bytes, now: float) -> None:
        """Fetch it, unless that is under way. Raises RefusedError."""
        if key in self._transfers:
            return
        if len(self._transfers) >= MOST:
            raise RefusedError("busy", f"{MOST} blobs are being fetched", "try again later")
        self._transfers[key] = _Transfer(now)

    def later(self, keys: Iterable[bytes], at: float) -> None:
        """Fetch these when it is ``at`` and there is nothing else to do; what is too much is left out."""
        self._later_at = at
        for key in keys:
            if len(self._later) >= MOST_LATER:
                return
            self._later[key] = None

    def deadline(self) -> float | None:
        """When ``tick`` is due."""
        if self._later and not self._transfers:
            return self._later_at
        return min((each.due for each in self._transfers.values() if each.due is not None), default=None)

    def tick(self, now: float) -> None:
        """Ask for what is due."""
        if self._later and not self._transfers and self._later_at <= now:
            self.begin(next(iter(self._later)), now)
        for key, transfer in list(self._transfers.items()):
            if transfer.due is not None and transfer.due <= now:
                self._next(key, transfer)

    def answered(self, token: int, answer: Message, now: float) -> None:
        """A piece."""
        key = self._asked.pop(token, b"")
        transfer = self._transfers.get(key)
        if transfer is None:
            return
        data, size = answer.get("data"), answer.get("size")
        if not isinstance(data, bytes) or type(size) is not int or not self._fits(transfer, data, size):
            self._again(key, transfer, "failed", "the node service answers what cannot be", now)
            return
        try:
            if transfer.incoming is None:
                transfer.size, transfer.incoming = size, self._begin(size)
            transfer.incoming.write(data)
        except RefusedError as refused:
            self._end(key, transfer, refused, now)
            return
        except OSError as error:
            self._end(key, transfer, RefusedError("no-space", error.strerror or str(error), "check the disk"), now)
            return
        self.bytes += len(data)
        transfer.stalls = 0
        if transfer.offset < size:
            self._next(key, transfer)
        else:
            self._finish(key, transfer, transfer.incoming, now)

    def declined(self, token: int, code: str, why: str, now: float) -> None:
        """No piece."""
        key = self._asked.pop(token, b"")
        transfer = self._transfers.get(key)
        if transfer is None:
            return
        if code in _WRONG:
            self._again(key, transfer, code, why, now)
        elif code in _PASSING and transfer.stalls < STALLS and (transfer.offset or code in ("busy", "pending")):
            transfer.due = now + PAUSE * 2**transfer.stalls
            transfer.stalls += 1
        elif code in ("not-found", "unknown-op"):
            self._end(key, transfer, RefusedError("not-found", "neither here nor at a peer is such a blob"), now)
        else:
            why = f"the blob is not here, and no peer can be asked: {why}"
            fix = "try again when `edge-agent peers` shows one up"
            self._end(key, transfer, RefusedError("unreachable", why, fix), now)

    def close(self) -> None:
        """Forget all."""
        for transfer in self._transfers.values():
            _drop(transfer)
        self._transfers.clear()

    def _fits(self, transfer: _Transfer, data: bytes, size: int) -> bool:
        expected = min(PIECE, size - transfer.offset)
        return 0 <= size < 2**63 and len(data) == expected and (transfer.incoming is None or size == transfer.size)

    def _next(self, key: bytes, transfer: _Transfer) -> None:
        self._last += 1
        self._asked[self._last] = key
        transfer.due = None
        self._ask(self._last, {"hash": key, "offset": transfer.offset, "length": PIECE})

    def _finish(self, key: bytes, transfer: _Transfer, incoming: Incoming, now: float) -> None:
        if incoming.digest() != key:
            self._again(key, transfer, "wrong-blob", "the bytes have another hash than asked for", now)
            return
        try:
            incoming.finish()
        except OSError as error:
            self._end(key, transfer, RefusedError("no-space", error.strerror or str(error), "check the disk"), now)
            return
        self._end(key, transfer, None, now)

    def _again(self, key: bytes, transfer: _Transfer, code: str, why: str, now: float) -> None:
        """From the beginning, and from another peer: the node has its own opinion of the one that was wrong."""
        _drop(transfer)
        transfer.tries += 1
        if transfer.tries < TRIES:
            transfer.due = now
        else:
            fix = "see `edge-agent peers` for who has sent it"
            code = "wrong-blob" if code == "wrong-blob" else "unreachable"
            self._end(key, transfer, RefusedError(code, f"given up after {TRIES} tries: {why}", fix), now)

    def _end(self, key: bytes, transfer: _Transfer, error: RefusedError | None, now: float) -> None:
        _drop(transfer)
        del self._transfers[key]
        if error is not None and error.code == "unreachable":
            self._later_at = now + REST
        else:
            self._later.pop(key, None)
        self.fetched += error is None
        self.failed += error is not None
        self._done(key, error)


def _drop(transfer: _Transfer) -> None:
    if transfer.incoming is not None:
        transfer.incoming.discard()
        transfer.incoming = None
