"""One request to a service and its answer, as maps; no sockets here.

    request  {v: 1, id: int, op: str, ...}
    answer   {v: 1, id: int, ok: true, ...}  or  {v: 1, id: int, ok: false, error: {code, why, fix}}

``id`` is the client's own; the answer repeats it, 0 when the request had none to read. Codes every service may use:
malformed, version, unknown-op, bad-request, busy, failed.
"""

from __future__ import annotations

from ..peers.wire import PROTOCOL, WireError, pack, unpack
from .errors import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..peers.wire import Message

    Operation = Callable[["Request"], Message | None]

MAX_ID = 2**63 - 1


class Request:
    """What is asked, and the way to answer: once, at once or later."""

    __slots__ = ("_send", "id", "message", "op", "user")

    def __init__(self, message: Message, user: str, send: Callable[[bytes], None]) -> None:
        self.id: int = message["id"]
        self.op: str = message["op"]
        self.user = user  # as the Gate knows the peer: 'uid:N', or its CURVE key
        self.message = message
        self._send = send

    def reply(self, result: Message) -> None:
        """Answer with ``result``."""
        self._send(pack({"v": PROTOCOL, "id": self.id, "ok": True, **result}))

    def fail(self, error: RefusedError) -> None:
        """Answer with a refusal."""
        self._send(_refusal(self.id, error))

    # -- the arguments, typed and bounded; each raises RefusedError('bad-request')

    def data(self, key: str, most: int) -> bytes:
        """Bytes, at most ``most`` of them."""
        value = self.message.get(key)
        if not isinstance(value, bytes) or len(value) > most:
            raise _bad(key, f"is not at most {most} bytes")
        return value

    def exact(self, key: str, length: int, default: bytes | None = None) -> bytes:
        """Exactly ``length`` bytes; ``default`` when the key is absent and there is one."""
        value = self.message.get(key, default)
        if not isinstance(value, bytes) or (value is not default and len(value) != length):
            raise _bad(key, f"is not {length} bytes")
        return value

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number from ``low`` to ``high``; ``default`` when the key is absent and there is one."""
        value = self.message.get(key, default)
        if type(value) is not int or not low <= value <= high:
            raise _bad(key, f"is not a whole number from {low} to {high}")
        return value


def _bad(key: str, why: str) -> RefusedError:
    return RefusedError("bad-request", f"{key} {why}")


def _refusal(number: int, error: RefusedError) -> bytes:
    told = {"code": error.code, "why": error.why, "fix": error.fix}
    return pack({"v": PROTOCOL, "id": number, "ok": False, "error": told})


def parse(data: bytes, limit: int, user: str, send: Callable[[bytes], None]) -> Request | None:
    """The request in ``data``. None when there is none: a refusal has then been sent."""
    number = 0
    try:
        message = unpack(data, limit)
        number = _number(message)
        _check_op(message)
    except WireError as error:
        send(_refusal(number, RefusedError("malformed", f"the request is refused: {error}")))
        return None
    if message.get("v") != PROTOCOL:
        refused = RefusedError("version", f"this service speaks version {PROTOCOL}", "use a client of that version")
        send(_refusal(number, refused))
        return None
    return Request(message, user, send)


def _check_op(message: Message) -> None:
    if not isinstance(message.get("op"), str):
        raise WireError("op is not text")


def _number(message: Message) -> int:
    number = message.get("id")
    if type(number) is not int or not 0 <= number <= MAX_ID:
        raise WireError(f"id is not a whole number from 0 to {MAX_ID}")
    return number


def perform(request: Request, operations: Mapping[str, Operation]) -> bool:
    """Let the operation answer, or refuse for it; True unless it was refused.

    Besides RefusedError an OSError becomes a refusal. Anything else is a defect and ends the service: its supervisor
    sees it, and a service in an unknown state does not go on.
    """
    operation = operations.get(request.op)
    if operation is None:
        names = ", ".join(sorted(operations))
        request.fail(RefusedError("unknown-op", f"there is no operation {request.op[:64]!r}", f"one of {names}"))
        return False
    try:
        result = operation(request)
    except RefusedError as error:
        request.fail(error)
        return False
    except OSError as error:
        request.fail(RefusedError("failed", error.strerror or str(error)))
        return False
    if result is not None:
        request.reply(result)
    return True
