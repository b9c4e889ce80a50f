"""How a full node answers what light nodes ask of its ledger and its storage (PROTOCOL.md sections 4 and 6). Pure.

Each answer is a generator: it yields the Calls that it needs, is sent their results, and returns what goes out. A call
that fails is thrown in as DeclinedError; so is said what a light node may not ask.
"""

from __future__ import annotations

from ..records import Record
from . import frames
from .wire import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .wire import Message

    Job = Generator["Call", Message, Message]

LEDGER, STORAGE = "ledger", "storage"
CACHED_PROOFS = 64
FRESH = 5.0  # seconds for which a head of the ledger is passed on without asking again


class Call(Record):
    """Ask a service of this machine."""

    service: str
    op: str
    args: Message


class DeclinedError(Exception):
    """A call, or the request, is refused."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code, self.why = code, why


class Served:
    """The log of this machine's ledger, as far as it is known: its name, its head, and proofs of the head's past."""

    def __init__(self) -> None:
        self.origin = ""
        self.note = b""
        self.size = 0
        self.at = -FRESH
        self.changes = 0
        self.proofs: dict[int, list[bytes]] = {}

    def update(self, note: bytes, now: float) -> None:
        """Take the ledger's head. Raises DeclinedError when it is none."""
        self.at = now
        if note == self.note:
            return
        lines = note.split(b"\n", 2)
        if len(lines) < 3 or not lines[1].isdigit() or len(lines[1]) > 19:
            raise DeclinedError("failed", "the ledger has no head that can be read")
        self.origin, self.size, self.note = lines[0].decode("utf-8", "replace"), int(lines[1]), note
        self.changes += 1
        self.proofs.clear()


def refresh(served: Served, clock: Callable[[], float]) -> Job:
    """Ask the ledger for its head."""
    answer = yield Call(LEDGER, "head", {})
    served.update(frames.binary(answer, "checkpoint", frames.MAX_NOTE), clock())
    return {}


def head(served: Served, args: Message, clock: Callable[[], float]) -> Job:
    """The head, and the proof from what the asker knows."""
    origin = frames.text(args, "origin", frames.MAX_ORIGIN)
    begin = frames.whole(args, "from", 0, frames.MAX_INT) if "from" in args else 0
    if clock() - served.at >= FRESH or not served.note:
        yield from refresh(served, clock)
    _check_origin(served, origin)
    note, size = served.note, served.size
    if not 0 < begin < size:
        return {"note": note}
    proof = served.proofs.get(begin)
    if proof is None:
        answer = yield Call(LEDGER, "consistency", {"from": begin, "to": size})
        proof = frames.hashes(answer.get("proof"), "proof")
        if served.size == size and len(served.proofs) < CACHED_PROOFS:
            served.proofs[begin] = proof
    return {"note": note, "proof": proof}


def consistency(served: Served, args: Message) -> Job:
    """The proof between two sizes."""
    _check_origin(served, frames.text(args, "origin", frames.MAX_ORIGIN))
    sizes: Message = {key: frames.whole(args, key, 1, frames.MAX_INT) for key in ("from", "to")}
    answer = yield Call(LEDGER, "consistency", sizes)
    return {"proof": frames.hashes(answer.get("proof"), "proof")}


def inclusion(served: Served, args: Message) -> Job:
    """Where a leaf is, and the proof; or which leaf is there."""
    _check_origin(served, frames.text(args, "origin", frames.MAX_ORIGIN))
    asked: Message = {"size": frames.whole(args, "size", 1, frames.MAX_INT)}
    if "hash" in args:
        asked["hash"] = frames.digest(args, "hash")
    else:
        asked["index"] = frames.whole(args, "index", 0, asked["size"] - 1)
    answer = yield Call(LEDGER, "inclusion", asked)
    index = frames.whole(answer, "index", 0, frames.MAX_INT)
    made: Message = {"index": index, "proof": frames.hashes(answer.get("proof"), "proof")}
    if "hash" not in args:
        made["hash"] = frames.digest(answer, "hash")
    return made


def entries(served: Served, args: Message) -> Job:
    """Entries, and the proof of each."""
    _check_origin(served, frames.text(args, "origin", frames.MAX_ORIGIN))
    size = frames.whole(args, "size", 1, frames.MAX_INT)
    start = frames.whole(args, "start", 0, size - 1)
    most = min(frames.whole(args, "most", 1, frames.MAX_ENTRIES), size - start)
    answer = yield Call(LEDGER, "entries", {"start": start, "most": most})
    found = answer.get("entries")
    if not isinstance(found, list) or not found or not all(isinstance(each, bytes) for each in found):
        raise DeclinedError("not-found", "the ledger has no such entries")
    given, room = [], frames.MAX_PIECE
    for entry in found[:most]:
        room -= len(entry)
        if room < 0:
            break
        given.append(entry)
    proofs = []
    for place in range(len(given)):
        answer = yield Call(LEDGER, "inclusion", {"index": start + place, "size": size})
        proofs.append(frames.hashes(answer.get("proof"), "proof"))
    return {"entries": given, "proofs": proofs}


def submit(served: Served, args: Message) -> Job:
    """Append an entry."""
    _check_origin(served, frames.text(args, "origin", frames.MAX_ORIGIN))
    entry = frames.binary(args, "entry", frames.MAX_ENTRY)
    answer = yield Call(LEDGER, "append", {"entries": [entry]})
    first, size = (frames.whole(answer, key, 0, frames.MAX_INT) for key in ("first", "size"))
    served.at = -FRESH  # the next beat brings the new head
    return {"index": first, "size": size}


def blob(args: Message) -> Job:
    """A piece of a blob."""
    asked: Message = {
        "hash": frames.digest(args, "hash"),
        "offset": frames.whole(args, "offset", 0, frames.MAX_INT),
        "length": frames.whole(args, "length", 1, frames.MAX_PIECE),
    }
    answer = yield Call(STORAGE, "get", asked)
    data = frames.binary(answer, "data", asked["length"])
    return {"data": data, "size": frames.whole(answer, "size", 0, frames.MAX_INT)}


def _check_origin(served: Served, origin: str) -> None:
    if not served.origin or origin != served.origin:
        raise DeclinedError("unknown-log", "this node does not serve that log")


def start(op: str, served: Served, args: Message, clock: Callable[[], float]) -> Job | None:
    """The job that answers ``op``; None: no such operation."""
    if op == "head":
        return head(served, args, clock)
    if op == "blob":
        return blob(args)
    made = {"consistency": consistency, "inclusion": inclusion, "entries": entries, "submit": submit}.get(op)
    return None if made is None else made(served, args)


def advance(job: Job, result: Message | DeclinedError | None) -> Call | Message | DeclinedError:
    """Go on with ``job``: the next call, or what came of it. ``None`` begins it.

    What is wrong with the request becomes 'bad-request'; what is wrong with a service's answer, 'failed'.
    """
    try:
        if isinstance(result, DeclinedError):
            return job.throw(result)
        return next(job) if result is None else job.send(result)
    except StopIteration as end:
        made: Message = end.value
        return made
    except DeclinedError as declined:
        return declined
    except WireError as error:
        return DeclinedError("bad-request" if result is None else "failed", str(error))
