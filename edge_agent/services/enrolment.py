"""A service's CURVE keys go into the node's identity document: told to the identity service, which may not be there.

Nobody waits for it. A service that starts before identity is not in the document until its next start; what was in it
stays, since keys outlive restarts. ``depends_on: [identity]`` orders the two.
"""

from __future__ import annotations

import os

from ..peers import transport
from ..peers.wire import PROTOCOL, WireError, pack, unpack
from .log import DEBUG, WARNING, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .runtime import Runtime

IDENTITY = "identity"
MAX_ANSWER = 64 * 1024  # bytes: a document


def announce(runtime: Runtime, keys: tuple[str, ...]) -> None:
    """Send the present key and the next (Z85); the answer is looked at when it comes."""
    service = runtime.service
    path = os.path.join(os.path.dirname(service.options.run_dir), IDENTITY, f"{IDENTITY}.sock")
    if service.name == IDENTITY or not os.path.exists(path):
        return
    try:
        socket = transport.connect(runtime.context, f"ipc://{path}", MAX_ANSWER)
    except transport.TransportError as error:
        log(service.name, f"cannot enrol: {error}", WARNING)
        return
    transport.send(socket, [pack({"v": PROTOCOL, "id": 1, "op": "enrol", "service": service.name, "keys": list(keys)})])
    runtime.watch(socket, lambda: _heard(runtime, socket))


def _heard(runtime: Runtime, socket: transport.Socket) -> None:
    parts = transport.receive(socket, 1)
    if parts is None:
        return
    runtime.forget(socket)
    refused = refusal(parts[0].bytes if parts else b"")
    if refused:
        log(runtime.service.name, f"its CURVE key is not in the identity document: {refused}", WARNING)
    else:
        log(runtime.service.name, "its CURVE key is in the identity document", DEBUG)


def refusal(data: bytes) -> str:
    """Why the answer in ``data`` is a refusal; '' when it is none."""
    try:
        answer = unpack(data, MAX_ANSWER)
    except WireError as error:
        return f"the answer is {error}"
    if answer.get("ok") is True:
        return ""
    told = answer.get("error")
    return f"{told.get('why')}; fix: {told.get('fix')}" if isinstance(told, dict) else "no reason was given"
