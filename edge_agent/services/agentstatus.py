"""What the agent says of this machine, for the status that a light node tells its full peers."""

from __future__ import annotations

from ..control.client import AgentError, Client, NotRunningError
from ..peers import status
from .log import WARNING, log

ANSWER_WITHIN = 1.0  # seconds; the agent answers at once, or is not to be waited for
FRESH = 15.0  # seconds between two questions: each costs the agent a look at every cgroup
SLOWEST = 600.0  # seconds between two attempts when it does not answer


class AgentStatus:
    """Asks the agent at its status socket, one connection per question, as rarely as beats are."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._due = 0.0
        self._failures = 0
        self.told: status.Status = {}

    def read(self, now: float) -> status.Status:
        """The agent's part of a status; what it was before when there is no newer one, {} when it cannot be asked."""
        if now < self._due:
            return self.told
        try:
            with Client(self._path, ANSWER_WITHIN) as client:
                answer = client.call("status", timeout=ANSWER_WITHIN)
        except (AgentError, NotRunningError) as error:
            if not self._failures:
                log("node", f"cannot ask the agent for its status: {error}; full peers are told without it", WARNING)
            self._failures += 1
            self._due = now + min(SLOWEST, FRESH * 2.0 ** min(self._failures, 10))
            self.told = {}
            return self.told
        self._failures, self._due = 0, now + FRESH
        self.told = status.of_agent(answer, self.told)
        return self.told
