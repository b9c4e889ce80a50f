"""A light node's connections: which peers it holds, when it beats, when it gives one up or trusts it no more. Pure."""

from __future__ import annotations

from collections import Counter, deque

from .events import Close, Note, Open, Refusal, Send
from .session import ANSWER_WITHIN, CONNECTING, DISTRUSTED, DOWN, UP, Session, Target, View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .events import Action
    from .inquiries import Inquiry
    from .status import Status

CONNECTIONS = 3  # at once; more only while something is asked that these cannot answer
REMEMBERED = 32  # refusals told to people


class Links:
    """All configured full peers. ``Light`` asks by them; what it has to do when one does not answer is its own."""

    def __init__(
        self, targets: Sequence[Target], heartbeat: float, chance: Callable[[], float], status: Status
    ) -> None:
        self.status = status
        self.refused: deque[Refusal] = deque(maxlen=REMEMBERED)
        self.counts: Counter[str] = Counter()  # answers that held, by operation, and refusals, by code
        self._heartbeat, self._patience = heartbeat, min(ANSWER_WITHIN, heartbeat)
        self._chance = chance
        self._sessions = [Session(target) for target in targets]
        self._now = 0.0
        self._actions: list[Action] = []

    def views(self) -> tuple[View, ...]:
        """The peers in the order they were configured."""
        return tuple(session.view() for session in self._sessions)

    def endpoint(self, peer: int) -> str:
        """Of the peer with this index."""
        return self._sessions[peer].target.endpoint

    def refuse(self, index: int, code: str, why: str) -> None:
        """Something that this peer has shown is not believed."""
        session = self._sessions[index]
        session.refused += 1
        session.why = f"{code}: {why}"
        self.counts[f"refused {code}"] += 1
        self.refused.append(Refusal(self._now, session.target.endpoint, code, why))

    def _unanswered(self, index: int, inquiry: Inquiry) -> None:
        """A peer is gone, or late, and so is the answer to this."""
        raise NotImplementedError

    def _open_connections(self) -> int:
        return sum(session.state in (CONNECTING, UP) for session in self._sessions)

    def _connect(self) -> None:
        """The best of those that are due, as long as there is room."""
        due = [index for index, each in enumerate(self._sessions) if each.state == DOWN and each.due <= self._now]
        for index in sorted(due, key=lambda index: self._sessions[index].order):
            if self._open_connections() >= CONNECTIONS:
                return
            self._open(index)

    def _open(self, index: int) -> None:
        session = self._sessions[index]
        session.open(self._now)
        self._actions += [Open(index), Send(index, session.beat(self.status, self._now, self._patience))]

    def _beat(self, index: int) -> None:
        session = self._sessions[index]
        if self._open_connections() > CONNECTIONS and not session.load:
            others = [each for each in self._sessions if each.state in (CONNECTING, UP) and each is not session]
            if sum(each.order <= session.order for each in others) >= CONNECTIONS:
                self._actions.append(Close(index))  # it was needed for a question
                session.close(DOWN, self._now + self._heartbeat)
                return
        self._actions.append(Send(index, session.beat(self.status, self._now, self._patience)))

    def _lost(self, index: int) -> None:
        session = self._sessions[index]
        if session.state == UP or not session.failures:  # said once, not at every attempt
            was = "lost" if session.state == UP else "cannot reach"
            text = f"{was} full peer {session.target.endpoint}: no answer in {self._patience:g} s; trying again"
            self._actions.append(Note(text))
        self._drop(index, DOWN, self._now + session.retry_in(self._chance()))

    def _drop(self, index: int, state: str, due: float) -> None:
        self._actions.append(Close(index))
        for inquiry in self._sessions[index].close(state, due):
            self._unanswered(index, inquiry)

    def _distrust(self, index: int, code: str, why: str) -> None:
        """It has lied: nothing of it is believed for a while."""
        session = self._sessions[index]
        self.refuse(index, code, why)
        seconds = session.distrust_for()
        text = f"full peer {session.target.endpoint} is not trusted for {seconds / 60:g} min: {code}: {why}"
        self._actions.append(Note(text, bad=True))
        self._drop(index, DISTRUSTED, self._now + seconds)
