"""A full node: who is there, until when, and the answer to each request. Pure.

``step(event, now)`` takes what happened and returns what to do; ``deadline()`` is when to call again with a Tick. What
its ledger and its storage have to say is fetched by ``Ask`` and comes back as ``Told``: nothing here waits.
"""

from __future__ import annotations

from collections import Counter

from ..records import Record
from . import evidence, frames, serving
from .events import Keep, Note, Tick
from .members import MOST_JOBS, Member, Members, View
from .serving import Call, DeclinedError, Served
from .wire import PROTOCOL, Beat, Echo, WireError, pack_beat, unpack_beat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..notes import Verifier
    from .evidence import Evidence
    from .serving import Job
    from .session import Target
    from .wire import Message

MOST_PEERS = 32  # other full nodes named to light ones
ALL_JOBS = 1024  # requests in work, of all members together

__all__ = ["Full", "Keep", "Note", "Tick", "View"]


class Heard(Record):
    """Bytes from the peer that proved to own ``key``; ``route`` is where an answer goes."""

    key: str
    route: bytes
    data: bytes


class Told(Record):
    """What came of an Ask: the service's answer, or why there is none."""

    job: int
    result: Message | DeclinedError


class Send(Record):
    """Send these bytes to ``route``."""

    route: bytes
    data: bytes


class Ask(Record):
    """Ask a service of this machine; the answer belongs to ``job``."""

    job: int
    call: Call


Event = Tick | Heard | Told
Action = Send | Ask | Keep | Note


class _Work(Record):
    job: Job
    key: str  # '': the node's own
    route: bytes
    id: int
    op: str


class Full:
    """The light nodes this full node answers. ``news``: any number, another one after each start."""

    def __init__(
        self,
        node: str,
        release: str,
        keys: Iterable[str],
        news: int,
        verifiers: Iterable[Verifier] = (),
        others: Sequence[Target] = (),
    ) -> None:
        self._node, self._release = node, release
        self.members = Members(keys)
        self.served = Served()
        self.evidence = evidence.Store()
        self.counts: Counter[str] = Counter()
        self._news = news
        self.verifiers = {verifier.name: verifier for verifier in verifiers}
        self._others = [{"endpoint": each.endpoint, "key": each.key} for each in others[:MOST_PEERS]]
        self._work: dict[int, _Work] = {}
        self._last_job = 0
        self._refreshing = False
        self._now = 0.0
        self._actions: list[Action] = []

    @property
    def news(self) -> int:
        """Another number whenever there is something that light nodes should ask for."""
        return (self._news + self.served.changes) % frames.MAX_INT

    def deadline(self) -> float | None:
        """When ``step(Tick(), …)`` is due; None: never."""
        return self.members.deadline()

    def views(self) -> tuple[View, ...]:
        """Every light node that is a member, in the order of the configuration."""
        return self.members.views()

    def restore(self, found: Evidence) -> None:
        """Take evidence that was kept on disk."""
        self.evidence.add(found)

    def step(self, event: Event, now: float) -> list[Action]:
        """What to do about ``event``. ``now`` must not go backwards (a monotonic clock)."""
        self._now = now
        if isinstance(event, Heard):
            member = self.members.get(event.key)
            if member is not None:  # else the key was taken off the list after its handshake
                self._heard(member, event.route, event.data)
        elif isinstance(event, Told):
            work = self._work.pop(event.job, None)
            if work is not None:
                self._advance(work, event.result)
        else:
            self._expire()
        done, self._actions = self._actions, []
        return done

    def _expire(self) -> None:
        for member in self.members.expire(self._now):
            text = f"light node {member.view().node} is down: no beat for three of its intervals"
            self._actions.append(Note(text))

    # -- frames

    def _heard(self, member: Member, route: bytes, data: bytes) -> None:
        try:
            request = frames.parse_request(data)
        except frames.UnreadableError as error:
            if error.code == "version" and self._old_beat(member, route, data):
                return
            self._refuse(member, route, error.id, error.code, str(error))
            return
        first = request.op == "beat" and "base" not in request.args
        if route != member.route and not first:
            self._refuse(member, route, request.id, "no-session", "the first request has to be a first beat")
        elif route == member.route and request.id <= member.last:
            self._refuse(member, route, request.id, "replay", f"{request.id} is not larger than {member.last}")
        elif not member.spend(self._now):
            if route == member.route:
                member.last = request.id
            self._refuse(member, route, request.id, "busy", "too many requests, too fast")
        else:
            if route == member.route:
                member.last = request.id
            self._serve(member, route, request)

    def _refuse(self, member: Member, route: bytes, number: int, code: str, why: str) -> None:
        member.refused += 1
        self.counts[f"refused {code}"] += 1
        if member.refused == 1:
            self._actions.append(Note(f"light node {member.key} is refused: {code}: {why}"))
        self._actions.append(Send(route, frames.refusal(number, code, why)))

    def _serve(self, member: Member, route: bytes, request: frames.Request) -> None:
        try:
            if request.op == "beat":
                result = self._beat(member, route, request)
            elif request.op == "peers":
                result = {"peers": self._others}
            elif request.op == "announced":
                result = {"evidence": [each.message() for each in self.evidence.all()[: evidence.SHOWN]]}
            elif request.op == "announce":
                result = self._announce(request.args)
            else:
                self._begin(member, route, request)
                return
        except WireError as error:
            self._refuse(member, route, request.id, "bad-request", str(error))
            return
        self.counts[request.op] += 1
        self._actions.append(Send(route, frames.answer(request.id, result)))

    # -- being there

    def _beat(self, member: Member, route: bytes, request: frames.Request) -> Message:
        result: Message = {"news": self.news}
        if "base" not in request.args:
            member.first_beat(route, request.id, request.args.get("set"))
            result |= {"node": self._node, "release": self._release}
        elif not member.next_beat(request.id, request.args):
            result["again"] = True
        self._up(member, float(member.status["every"]))
        if self._now - self.served.at >= serving.FRESH and not self._refreshing:
            self._refreshing = True
            self._enter(_Work(serving.refresh(self.served, lambda: self._now), "", b"", 0, "refresh"))
        return result

    def _up(self, member: Member, every: float) -> None:
        if self.members.heard(member, every, self._now):
            view = member.view()
            self._actions.append(Note(f"light node {view.node} is up: {view.release}, key {member.key}"))

    def _old_beat(self, member: Member, route: bytes, data: bytes) -> bool:
        """A beat of version 1 is answered as ever: a fleet is upgraded one by one."""
        try:
            beat = unpack_beat(data)
        except WireError:
            return False
        if not isinstance(beat, Beat):
            return False
        if not member.spend(self._now):
            self.counts["refused busy"] += 1
            return True  # version 1 has no word for it: no echo
        member.old_beat(beat)
        self._up(member, beat.interval)
        self.counts[f"beat of version {PROTOCOL}"] += 1
        self._actions.append(Send(route, pack_beat(Echo(self._node, self._release, beat.sequence))))
        return True

    # -- evidence

    def _announce(self, args: Message) -> Message:
        message = args.get("evidence")
        if not isinstance(message, dict):
            raise WireError("evidence is not a map")
        found = evidence.parse(message, self.verifiers)
        if found is None:
            return {"kept": False}
        kept, gone = self.evidence.add(found)
        if kept:
            self._news += 1
            self._actions += [Keep(found, gone), Note(f"evidence against log {found.origin}: {found.kind}", bad=True)]
        return {"kept": kept}

    # -- what ledger and storage have to answer

    def _begin(self, member: Member, route: bytes, request: frames.Request) -> None:
        job = serving.start(request.op, self.served, request.args, lambda: self._now)
        if job is None:
            self._refuse(member, route, request.id, "unknown-op", f"there is no operation {request.op}")
        elif member.jobs >= MOST_JOBS or len(self._work) >= ALL_JOBS:
            self._refuse(member, route, request.id, "busy", "too many requests at once")
        else:
            member.jobs += 1
            self._enter(_Work(job, member.key, route, request.id, request.op))

    def _enter(self, work: _Work) -> None:
        self._advance(work, None)

    def _advance(self, work: _Work, result: Message | DeclinedError | None) -> None:
        came = serving.advance(work.job, result)
        if isinstance(came, Call):
            self._last_job += 1
            self._work[self._last_job] = work
            self._actions.append(Ask(self._last_job, came))
            return
        if not work.key:
            self._refreshing = False
            if isinstance(came, DeclinedError):
                self.served.at = self._now  # not asked again at every beat
            return
        member = self.members.get(work.key)
        if member is None:
            return
        member.jobs -= 1
        if isinstance(came, DeclinedError):
            if came.code == "bad-request":
                self._refuse(member, work.route, work.id, came.code, came.why)
            else:
                self.counts[f"declined {came.code}"] += 1
                self._actions.append(Send(work.route, frames.refusal(work.id, came.code, came.why)))
            return
        self.counts[work.op] += 1
        self._actions.append(Send(work.route, frames.answer(work.id, came)))
