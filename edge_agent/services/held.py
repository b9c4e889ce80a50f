"""Requests that wait for a blob to be checked or fetched: a bounded number, each for a bounded time."""

from __future__ import annotations

from .errors import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .requests import Request

HOLD = 3.0  # seconds; clients wait five for an answer
MOST = 32  # for one blob
MOST_BLOBS = 16


class Held:
    """Those of each blob, in the order of their coming."""

    def __init__(self) -> None:
        self._requests: dict[bytes, list[tuple[float, Request]]] = {}

    def add(self, key: bytes, request: Request, now: float) -> None:
        """It waits from now on. Raises RefusedError when too many do."""
        waiting = self._requests.get(key)
        if waiting is None:
            if len(self._requests) >= MOST_BLOBS:
                raise RefusedError("busy", f"requests wait for {MOST_BLOBS} blobs", "try again later")
            waiting = self._requests[key] = []
        if len(waiting) >= MOST:
            raise RefusedError("busy", f"{MOST} requests wait for this blob", "try again later")
        waiting.append((now + HOLD, request))

    def take(self, key: bytes) -> list[Request]:
        """All that wait for the blob; they do not any more."""
        return [request for _, request in self._requests.pop(key, ())]

    def deadline(self) -> float | None:
        """When the next one has waited long enough."""
        return min((waiting[0][0] for waiting in self._requests.values()), default=None)

    def late(self, now: float) -> list[tuple[bytes, Request]]:
        """Those that have waited long enough; they do not any more."""
        found = []
        for key, waiting in list(self._requests.items()):
            found += [(key, request) for until, request in waiting if until <= now]
            waiting[:] = [each for each in waiting if each[0] > now]
            if not waiting:
                del self._requests[key]
        return found
