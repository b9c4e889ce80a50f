"""Is a service ready, is it alive: one check at a time per service, without ever waiting in the loop.

While a service is not ready it is checked after 50 ms, then at growing distances of at most a second, so that readiness
is seen early; once ready, at ``health.interval``. ``health.failures`` failed checks in a row are reported as Unhealthy.
A service with sd_notify is not checked: it speaks, and each ``interval`` of silence counts as a failure.

When a time is up and this process notices late, the machine stood still (a paused virtual machine, a thrashing board, a
card that hangs): then the service could not do anything either, and all of them would be restarted at once for it. So
nothing is held against it, once, and it gets its time again.
"""

from __future__ import annotations

from ..model import Ready, Unhealthy
from . import checks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model import Event, Service
    from .containment import Containment
    from .loop import Loop, Timer

FIRST = 0.05  # seconds
GROWTH = 1.5
SLOWEST = 1.0  # seconds between checks of a service that is not ready
STALL = 1.0  # seconds by which a timer is late when more than this process was held up


class Prober:
    """Watches every service that has a health check; tells by ``emit``, never from within ``start`` or ``stop``."""

    def __init__(self, loop: Loop, containment: Containment, emit: Callable[[Event], None]) -> None:
        self._loop = loop
        self._containment = containment
        self._emit = emit
        self._watched: dict[str, Probe] = {}
        self._early: set[str] = set()  # said READY=1 before they were watched
        self.statuses: dict[str, str] = {}  # the last STATUS= of each service

    def start(self, service: Service, ready: bool) -> None:
        """Watch (again) from now on; an earlier watch of the same name ends."""
        early = service.name in self._early
        self.stop(service.name)
        if service.health.kind:
            self._watched[service.name] = Probe(self._loop, self._containment, self._emit, service, ready)
            if early and not ready:
                self._loop.at(self._loop.now(), lambda: self.said(service.name, {"READY": "1"}))

    def stop(self, name: str) -> None:
        """Watch no more; a check under way is given up."""
        self._early.discard(name)
        self.statuses.pop(name, None)
        probe = self._watched.pop(name, None)
        if probe is not None:
            probe.close()

    def said(self, name: str, words: dict[str, str]) -> None:
        """A service spoke by sd_notify (``notify.parse``)."""
        if "STATUS" in words:
            self.statuses[name] = words["STATUS"]
        probe = self._watched.get(name)
        if probe is not None:
            probe.said(words)
        elif words.get("READY") == "1":
            self._early.add(name)


class Probe:
    """One service."""

    def __init__(
        self, loop: Loop, containment: Containment, emit: Callable[[Event], None], service: Service, ready: bool
    ) -> None:
        self._loop = loop
        self._containment = containment
        self._emit = emit
        self._service = service
        self._ready = ready
        self._failures = 0
        self._pause = FIRST
        self._heard = loop.now()
        self._check: checks.Check | None = None
        self._timer: Timer | None = None
        self._excused = False  # for a stall of the machine, since it was last found well
        self._schedule()

    def close(self) -> None:
        """Nothing is emitted any more."""
        self._cancel_timer()
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def said(self, words: dict[str, str]) -> None:
        """Only for sd_notify; from a service checked otherwise it means nothing."""
        if self._service.health.kind != "sd_notify":
            return
        if words.get("WATCHDOG") == "1":
            self._heard = self._loop.now()
            self._excused = False
        if "STOPPING" in words:
            self._cancel_timer()  # it may be silent on its way out; the stop time-out looks after it
        elif words.get("READY") == "1" and not self._ready:
            self._heard = self._loop.now()
            self._become_ready()

    def _become_ready(self) -> None:
        self._ready = True
        self._failures = 0
        self._schedule()
        self._emit(Ready(self._service.name))

    def _schedule(self) -> None:
        """Set the one timer: the next check, or the end of the silence that is allowed."""
        self._cancel_timer()
        health = self._service.health
        if health.kind == "sd_notify":
            if self._ready and health.interval > 0:
                due = self._heard + health.interval * max(1, health.failures)
                self._timer = self._loop.at(due, self._silent)
        elif not self._ready:
            self._timer = self._loop.at(self._loop.now() + self._pause, self._begin)
            slowest = min(SLOWEST, health.interval) if health.interval > 0 else SLOWEST
            self._pause = min(self._pause * GROWTH, max(slowest, FIRST))
        elif health.interval > 0:
            self._timer = self._loop.at(self._loop.now() + health.interval, self._begin)

    def _silent(self) -> None:
        health = self._service.health
        silence = self._loop.now() - self._heard
        if silence < health.interval * max(1, health.failures):
            self._schedule()  # a word came meanwhile; one timer per allowed silence, not one per word
            return
        if self._stalled():
            self._timer = self._loop.at(self._loop.now() + health.interval, self._silent)
            return
        self._heard = self._loop.now()
        self._schedule()
        self._emit(
            Unhealthy(self._service.name, f"no WATCHDOG=1 for {silence:.1f} s, expected every {health.interval:g} s")
        )

    def _begin(self) -> None:
        timeout = self._service.health.timeout
        try:
            self._check = checks.start(self._loop, self._containment, self._service, self._done)
        except OSError as error:
            self._timer = None
            self._done(error.strerror or str(error))
        else:
            self._timer = self._loop.at(self._loop.now() + timeout, self._late)

    def _late(self) -> None:
        if self._check is not None:
            self._check.cancel()
        if self._stalled():
            self._check = None
            self._begin()
            return
        self._done(f"no answer within {self._service.health.timeout:g} s")

    def _done(self, reason: str) -> None:
        self._check = None
        health = self._service.health
        if not reason:
            self._failures = 0
            self._excused = False
            if self._ready:
                self._schedule()
            else:
                self._become_ready()
            return
        self._failures += 1
        unhealthy = self._ready and self._failures >= max(1, health.failures)
        count = self._failures
        if unhealthy:
            self._failures = 0
        self._schedule()
        if unhealthy:  # last: whoever hears it may stop this probe
            times = "" if count == 1 else f", {count} times in a row"
            self._emit(Unhealthy(self._service.name, f"health check: {reason}{times}"))

    def _stalled(self) -> bool:
        """Has the timer that is up now come so late that the machine must have stood still? Believed once in a row."""
        late = self._timer is not None and self._loop.now() - self._timer.due >= STALL
        excused, self._excused = late and not self._excused, late
        return excused

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
