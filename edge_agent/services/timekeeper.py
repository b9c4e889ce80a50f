"""Keeps the schedule: asks the agent for what ``timekeeping`` decides, and sleeps until the next time.

It wakes up when something is due, when somebody sets the clock, and when the agent hangs up. The agent's socket stays
connected for the last: a new agent may have forgotten what was asked of the one before.
"""

from __future__ import annotations

import json
import math
import os
import select
import time

from ..control.client import AgentError, Client, NotRunningError
from ..host import zones
from ..schedule import ScheduleError, Times, words
from . import clock, directory
from .errors import StartError
from .log import WARNING, log
from .timekeeping import STEP, Action, Look, State, decide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .notify import Notifier
    from .options import Options
    from .signals import Stop

NAME = "timekeeper"
ANSWER = 5.0  # seconds for an answer of the agent
SLOWEST = 60.0  # seconds between two attempts to reach it
RARELY = 600.0  # seconds between two writes of what is not an opening, an end or a switch: flash wears
MOST_UNSENT = 1000


class Timekeeper:
    """The service. Raises StartError."""

    def __init__(self, options: Options, notifier: Notifier, stop: Stop) -> None:
        self._options, self._notifier, self._stop = options, notifier, stop
        self._path = os.path.join(options.data_dir, "state")
        self._keys = {entry.name: f"{entry.name} {words(entry)}" for entry in options.schedule}
        self._version: object = None
        self._times: dict[str, Times] = {}
        self._client: Client | None = None
        self._fresh = True
        self._unsent: list[Action] = []
        self._failures = 0
        self._saved = -math.inf  # steady: when the state was last written
        self.state = State()

    def run(self) -> None:
        """Until asked to stop."""
        directory.make(self._options.data_dir)
        lock = directory.lock(self._options.data_dir, NAME)
        self._load()
        timer = clock.WallTimer()
        try:
            self._read_zones()
            self._notifier.send("READY=1", f"STATUS=keeps {len(self._times)} entries of {self._options.profile}")
            while not self._stop.asked:
                wall, steady = self._turn()
                self._wait(timer, wall, steady)
            self._notifier.send("STOPPING=1")
        finally:
            timer.close()
            if self._client is not None:
                self._client.close()
            os.close(lock)

    def _turn(self) -> tuple[float | None, float | None]:
        """One look and what follows from it; when to look again."""
        self._read_zones()
        try:
            seen = self._agent().call("scheduled", {"does": "look"}, timeout=ANSWER)
            look = Look(clock.wall(), clock.steady(), seen["profile"], seen["switch"], self._fresh)
            decision = decide(self.state, self._times, self._options.profile, look, clock.show)
            self._fresh = False
            self.state = decision.state
            self._unsent = [*self._unsent, *decision.actions][:MOST_UNSENT]
            self._save(decision.actions)
            self._send()
        except (AgentError, NotRunningError) as error:
            return None, self._failed(error)
        self._failures = 0
        return decision.wall, decision.steady

    def _agent(self) -> Client:
        if self._client is None:
            self._client = Client(self._options.control, ANSWER)
        return self._client

    def _send(self) -> None:
        """What is kept back when the agent is away goes out in order when it is there again."""
        while self._unsent:
            action = self._unsent[0]
            log(NAME, action.text)
            try:
                self._agent().call("scheduled", action._asdict(), timeout=ANSWER)
            except AgentError as error:
                if error.code in ("gone", "timeout", "protocol", "permission"):
                    raise
                log(NAME, f"the agent does not do it: {error}", WARNING)
            del self._unsent[0]

    def _failed(self, error: Exception) -> float:
        """The agent cannot be reached; when to try again."""
        if self._client is not None:
            self._client.close()
        self._client, self._fresh = None, True
        if not self._failures:
            log(NAME, f"cannot reach the agent: {error}; fix: none, it is tried again", WARNING)
        self._failures += 1
        return clock.steady() + min(SLOWEST, 0.25 * 2.0 ** min(self._failures, 10))

    def _wait(self, timer: clock.WallTimer, wall: float | None, steady: float | None) -> None:
        if not timer.arm(wall):
            return
        offset = self.state.offset
        moved = offset is not None and abs(clock.wall() - clock.steady() - offset) > STEP
        if moved and steady is None:
            return  # set between the look and the arming, which alone notices it
        poll = select.poll()
        poll.register(timer.fd, select.POLLIN)
        poll.register(self._stop.fd, select.POLLIN)
        if self._client is not None:
            poll.register(self._client.fileno(), select.POLLIN)
        timeout = None if steady is None else max(0, math.ceil((steady - clock.steady()) * 1000))
        for fd, _events in poll.poll(timeout):
            if fd == timer.fd:
                timer.clear()
            elif self._client is not None and fd == self._client.fileno():
                self._client.close()
                self._client, self._fresh = None, True

    def _read_zones(self) -> None:
        """The calendars, anew when the machine's zone is another than before."""
        version = zones.version()
        if self._times and version == self._version:
            return
        self._version = version
        time.tzset()
        try:
            self._times = {entry.name: Times(entry, zones.find(entry.zone)) for entry in self._options.schedule}
        except (ScheduleError, zones.UnknownZoneError) as error:
            raise StartError(f"cannot keep the schedule: {error}; fix: see `edge-agent plan`") from error

    # -- on record -----------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """What an earlier process has dealt with. Of another profile's schedule only the time counts."""
        try:
            with open(self._path, encoding="utf-8") as file:
                kept = json.load(file)
            newest = float(kept["newest"])
            until = {str(key): float(at) for key, at in kept["until"].items()}
            own = kept["profile"] == self._options.profile
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log(NAME, f"cannot read {self._path}: {error!r:.200}; begins anew", WARNING)
            return
        known = {name: until[key] for name, key in self._keys.items() if own and key in until}
        if math.isfinite(newest) and all(map(math.isfinite, known.values())):
            self.state = State(known, newest)

    def _save(self, actions: tuple[Action, ...]) -> None:
        """Before the agent is asked: a switch may end this process. A full disk must not keep the schedule from it."""
        now = clock.steady()
        by_name = {entry.name: entry for entry in self._options.schedule}
        matters = any(
            action.entry not in by_name or by_name[action.entry].is_window or by_name[action.entry].profile
            for action in actions
        )
        if not matters and now - self._saved < RARELY:
            return
        until = {self._keys[name]: at for name, at in self.state.until.items() if name in self._keys}
        kept = {"profile": self._options.profile, "newest": self.state.newest, "until": until}
        try:
            with open(f"{self._path}.new", "w", encoding="utf-8") as file:
                json.dump(kept, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(f"{self._path}.new", self._path)
            self._saved = now
        except OSError as error:
            log(NAME, f"cannot write {self._path}: {error.strerror}; fix: free the disk", WARNING)
