"""A light node: whom to connect to, what to ask whom, what to believe, when to give up for a while. Pure.

``step(event, now)`` takes what happened and returns what to do; ``deadline()`` is when to call again with a Tick. One
connection is made per attempt and dropped when it does not answer, so that a half-open TCP connection cannot look
alive, and the only clock that retries is the one here. PROTOCOL.md has the rules.
"""

from __future__ import annotations

import math

from . import frames
from .beliefs import Beliefs
from .events import Asked, Done, Failed, Heard, Note, Send
from .inquiries import Inquiry, LieError, Transfers, UnfitError
from .links import CONNECTIONS, Links
from .session import CONNECTING, DISTRUSTED, DOWN, MOST_PENDING, UP, Pending, Target
from .wire import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..notes import Verifier
    from .events import Action, Event
    from .status import Status
    from .wire import Message

AGAIN = 5.0  # seconds between two attempts at a peer, however much is asked
FIND_WITHIN = 10.0  # seconds for a question to find a peer
MOST_WAITING = 64  # questions that look for one


class Light(Links):
    """All configured full peers and logs.

    ``chance`` returns a number from 0 to 1; it spreads the retries of many nodes. ``status`` is told with every beat:
    replace it at will. ``transfers`` makes the inquiries for blobs.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        heartbeat: float,
        chance: Callable[[], float],
        status: Status,
        verifiers: Iterable[Verifier] = (),
    ) -> None:
        super().__init__(targets, heartbeat, chance, status)
        self.transfers = Transfers()
        self.beliefs = Beliefs(verifiers, self)
        self._waiting: list[Inquiry] = []

    # -- what is to be seen

    def deadline(self) -> float | None:
        """When ``step(Tick(), …)`` is due, on the clock given to ``step``; None: never."""
        room = self._open_connections() < CONNECTIONS
        dues = [session.wakes() for session in self._sessions if session.state != DOWN or room]
        dues += [inquiry.deadline for inquiry in self._waiting]
        due = min(dues, default=math.inf)
        return None if due == math.inf else due

    def beats(self, now: float) -> bool:
        """Is a beat due? Then ``status`` should be fresh."""
        room = self._open_connections() < CONNECTIONS
        return any(
            session.due <= now and (session.state == UP or (session.state == DOWN and room))
            for session in self._sessions
        )

    # -- what is to be done

    def step(self, event: Event, now: float) -> list[Action]:
        """What to do about ``event``. ``now`` must not go backwards (a monotonic clock)."""
        self._now = now
        if isinstance(event, Heard):
            self._heard(event.peer, event.data)
        elif isinstance(event, Asked):
            event.inquiry.deadline = now + FIND_WITHIN
            self._find(event.inquiry)
        else:
            self._tick()
        done, self._actions = self._actions, []
        return done

    def _tick(self) -> None:
        for index, session in enumerate(self._sessions):
            if session.state in (CONNECTING, UP):
                beat, asked = session.overdue(self._now)
                if beat:
                    self._lost(index)
                for inquiry in asked:
                    self._unanswered(index, inquiry)
            if session.state == UP and session.due <= self._now:
                self._beat(index)
            elif session.state == DISTRUSTED and session.due <= self._now:
                session.state, session.due = DOWN, self._now
        self._connect()
        for inquiry in [each for each in self._waiting if each.deadline <= self._now]:
            self._waiting.remove(inquiry)
            self._fail(inquiry)

    # -- questions

    def _find(self, inquiry: Inquiry) -> None:
        """Send it to the best peer that is up and was not asked yet; wait for one that may come up; or give up."""
        up = [
            index
            for index, each in enumerate(self._sessions)
            if each.state == UP and index not in inquiry.tried and each.load < MOST_PENDING
        ]
        if inquiry.bound:
            up = [index for index in up if index == inquiry.prefer]
        if up:
            best = min(up, key=lambda i: (i != inquiry.prefer, self._sessions[i].load, self._sessions[i].order))
            inquiry.tried.add(best)
            self._actions.append(Send(best, self._sessions[best].ask(inquiry, self._now)))
        elif self._may_come_up(inquiry) and len(self._waiting) < MOST_WAITING and self._now < inquiry.deadline:
            self._waiting.append(inquiry)
        else:
            self._fail(inquiry)

    def _may_come_up(self, inquiry: Inquiry) -> bool:
        """Is there a peer to wait for? Those that are down are tried at once, if they were not just now."""
        hope = False
        for index, session in enumerate(self._sessions):
            if index in inquiry.tried or (inquiry.bound and index != inquiry.prefer):
                continue
            if session.state == DOWN and self._now - session.tried >= AGAIN:
                self._open(index)
            hope = hope or session.state == CONNECTING or session.due < inquiry.deadline
        return hope

    def _unanswered(self, index: int, inquiry: Inquiry) -> None:
        if inquiry.token is None:
            self._sessions[index].news = None  # asked again with the next beat
            return
        if inquiry.once:
            inquiry.code = "unknown-outcome"
            inquiry.why = f"full peer {self.endpoint(index)} has not answered; it may have been done"
            self._fail(inquiry)
            return
        inquiry.code, inquiry.why = "timeout", f"full peer {self.endpoint(index)} has not answered"
        self._find(inquiry)

    def _fail(self, inquiry: Inquiry) -> None:
        if inquiry.token is not None:
            self._actions.append(Failed(inquiry.token, inquiry.code, inquiry.why))

    # -- answers

    def _heard(self, index: int, data: bytes) -> None:
        session = self._sessions[index]
        if session.state not in (CONNECTING, UP):
            self.refuse(index, "replay", "it has not been asked anything")
            return
        try:
            answer = frames.parse_answer(data)
        except WireError as error:
            self._distrust(index, "malformed", str(error))
            return
        try:
            pending = session.take(answer.id, self._now)
        except WireError as error:
            self._distrust(index, "replay", str(error))
            return
        if pending is None:
            return
        try:
            if pending.inquiry is None:
                self._beaten(index, answer, pending)
            elif answer.code:
                self._declined(index, pending.inquiry, answer)
            else:
                self._judge(index, pending.inquiry, answer.result)
        except WireError as error:
            self._lied(index, pending.inquiry, LieError("malformed", str(error)))
        waiting, self._waiting = self._waiting, []
        for inquiry in waiting:  # there may be room now, or a peer more
            self._find(inquiry)

    def _lied(self, index: int, inquiry: Inquiry | None, lie: LieError) -> None:
        self._distrust(index, lie.code, lie.why)
        if inquiry is not None and inquiry.token is not None:
            inquiry.code, inquiry.why = lie.code, f"full peer {self.endpoint(index)}: {lie.why}"
            if lie.final or inquiry.once:
                self._fail(inquiry)
            else:
                self._find(inquiry)

    def _beaten(self, index: int, answer: frames.Answer, pending: Pending) -> None:
        session = self._sessions[index]
        if answer.code:
            text = f"full peer {session.target.endpoint} does not take the beat: {answer.code}: {answer.why}"
            if not session.failures:
                self._actions.append(Note(text))
            self._drop(index, DOWN, self._now + session.retry_in(self._chance()))
            return
        came_up = session.state == CONNECTING
        news = session.beaten(answer.result, self._now, self._heartbeat, pending.sent)
        if came_up:
            text = f"full peer {session.target.endpoint} is up: {session.node} {session.release}"
            self._actions.append(Note(text))
            self.beliefs.tell(index)
        if news:
            self.beliefs.learn(index, session.without)
        if session.due <= self._now:  # it wants the status anew
            self._beat(index)

    def _declined(self, index: int, inquiry: Inquiry, answer: frames.Answer) -> None:
        session = self._sessions[index]
        if answer.code == "unknown-log" and inquiry.op == "head":
            session.without.add(str(inquiry.args["origin"]))
        elif inquiry.token is None and answer.code in ("busy", "unavailable"):
            session.news = None
        if inquiry.token is not None:
            inquiry.code, inquiry.why = answer.code, f"full peer {session.target.endpoint}: {answer.why}"
            self._find(inquiry)

    def _judge(self, index: int, inquiry: Inquiry, result: Message) -> None:
        try:
            found = inquiry.judge(result, index)
        except LieError as lie:
            self._lied(index, inquiry, lie)
            return
        except UnfitError as unfit:
            if unfit.code != "bad-request":
                self.refuse(index, unfit.code, unfit.why)
            inquiry.code, inquiry.why = unfit.code, unfit.why
            self._fail(inquiry)
            return
        self.counts[inquiry.op] += 1
        if inquiry.token is not None:
            self._actions.append(Done(inquiry.token, found, index))

    # -- what the beliefs ask of this node

    def act(self, action: Action) -> None:
        """Have something done."""
        self._actions.append(action)

    def ask(self, index: int, inquiry: Inquiry) -> None:
        """One of the node's own questions, for this peer alone."""
        session = self._sessions[index]
        if session.state == UP and session.load < MOST_PENDING:
            self._actions.append(Send(index, session.ask(inquiry, self._now)))

    def peers(self) -> range:
        """The indices of all peers."""
        return range(len(self._sessions))

    def now(self) -> float:
        """The clock of the step that is made."""
        return self._now
