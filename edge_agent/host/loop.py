"""The resident's one loop: readiness by epoll(7), timers by a heap, the monotonic clock. No timer, no wakeup."""

from __future__ import annotations

import heapq
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ, WRITE, URGENT, HANGUP, ERROR = (
    select.EPOLLIN,
    select.EPOLLOUT,
    select.EPOLLPRI,
    select.EPOLLHUP,
    select.EPOLLERR,
)


class Timer:
    """A pending call. ``cancel`` may be called at any time, also twice."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """The call will not be made."""
        self.call = None


class Loop:
    """Callbacks by file descriptor and by time (monotonic seconds); one thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.wakeups = 0  # since start; status shows it, the budget test reads it
        self._epoll = select.epoll()
        self._calls: dict[int, tuple[int, Callable[[int], None]]] = {}  # with the wakeup in which it was given
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = 0
        self._stopped = False

    def watch(self, fd: int, mask: int, call: Callable[[int], None]) -> None:
        """Call ``call(events)`` when ``fd`` is ready for ``mask``; again for the same fd: change both."""
        if fd in self._calls:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._calls[fd] = self.wakeups, call

    def forget(self, fd: int) -> None:
        """Stop watching ``fd``. Call it before closing: the kernel keeps an epoll entry alive by the open file."""
        if self._calls.pop(fd, None) is not None:
            try:
                self._epoll.unregister(fd)
            except OSError:
                pass  # closed already, so the kernel has dropped it

    def at(self, due: float, call: Callable[[], None]) -> Timer:
        """Call ``call()`` once ``now`` has reached ``due``, monotonic seconds."""
        timer = Timer(due, call)
        self._order += 1
        heapq.heappush(self._timers, (due, self._order, timer))
        return timer

    def stop(self) -> None:
        """Return from ``run`` after the current callbacks."""
        self._stopped = True

    def run(self) -> None:
        """Turn until ``stop``."""
        while not self._stopped:
            self.turn(None)

    def turn(self, limit: float | None) -> None:
        """Wait for one batch of readiness or due timers, at most ``limit`` seconds, and make the calls."""
        timeout = self._timeout(limit)
        ready = self._epoll.poll(timeout)
        self.wakeups += 1
        for fd, events in ready:
            # An earlier callback of this batch may have closed it, and got the same number for something else.
            since, call = self._calls.get(fd, (self.wakeups, None))
            if call is not None and since != self.wakeups:
                call(events)
        self._fire()

    def _timeout(self, limit: float | None) -> float | None:
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return limit
        wait = max(0.0, self._timers[0][0] - self.now())
        return wait if limit is None else min(wait, limit)

    def _fire(self) -> None:
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            call, timer.call = timer.call, None
            if call is not None:
                call()
