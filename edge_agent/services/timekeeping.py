"""What the timekeeper does next: ``decide(state, times, look) -> Decision``, pure; both clocks are arguments.

Windows are levels: what should be is compared with what is, so a restart in the middle of one does the right thing.
Moments are edges: each is settled once, by ``State.until``, the time up to which an entry has been dealt with. What a
clock may do, and what comes of it:

- *It is not to be believed*: before the release, or at a start hours before the newest time on record. Nothing is due;
  that is said once. A clock that has only lost some hours is believed after an hour without a better one.
- *It is set forward, or the machine slept*: of each entry, what was missed is one thing, made up for once if it is not
  later than its grace, and said in either case. Nothing is listed, so ten years cost what an hour costs.
- *It is set back by up to three hours*, as cron(8) has it: the schedule stands still until that time comes again, so
  nothing is done twice. *By more*: the clock was wrong before, and the schedule goes by the new time from now on.
- *It is set again and again*: looked at once a minute, so a clock cannot cause more actions than minutes pass.
"""

from __future__ import annotations

from ..model import RELEASED
from ..records import Record
from ..schedule import Times, amount, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BACK = 3 * 3600.0  # seconds set back that are waited for; more is a correction (cron(8))
PATIENCE = 3600.0  # seconds to wait for a better clock than one that is behind the record
STEP = 2.0  # seconds between the two clocks that are not the reading of them
AGAIN = 60.0  # seconds between two looks at a clock that is set, and the first pause before a switch is tried again
TRIES = 7  # of a switch: over two hours with doubled pauses
ON_TIME = 60.0  # seconds: not later than that is not worth a word

BEGIN, END, FIRE, NOTE = "begin", "end", "fire", "note"


class Look(Record):
    """What is: unix seconds, seconds of a clock that nobody sets (CLOCK_BOOTTIME), and the profile in force.

    ``switch``: what has come of the last switch that was asked for. ``fresh``: this process or the agent is new, so
    what is open has to be asked for again.
    """

    wall: float
    steady: float
    profile: str
    switch: str = ""  # '' | running | done | failed
    fresh: bool = False


class Want(Record):
    """A switch that was asked for and has not come true yet."""

    entry: str
    does: str
    profile: str
    text: str
    due: float  # steady: when to ask again
    tries: int = 1


class State(Record):
    """``until`` by entry and ``newest`` are kept on disk; the rest is of this process."""

    until: Mapping[str, float] = {}
    newest: float = 0.0  # the time of the schedule: wall time, but that it stands still when the clock is set back
    began: Mapping[str, float] = {}  # windows that were opened by this process, by entry
    offset: float | None = None  # wall - steady at the last look
    set_at: float | None = None  # steady: when the clock was last seen to be set
    doubt: float | None = None  # steady: since when the clock is not believed
    want: Want | None = None


class Action(Record):
    """What to ask of the agent: does is BEGIN, END or FIRE of an entry, or NOTE."""

    does: str
    entry: str
    text: str


class Decision(Record):
    """``wall`` and ``steady``: when to look next, whichever comes first; None: for no reason of that clock."""

    state: State
    actions: tuple[Action, ...] = ()
    wall: float | None = None
    steady: float | None = None


class _Work:
    __slots__ = ("actions", "began", "look", "running", "show", "state", "until")

    def __init__(self, state: State, look: Look, show: Callable[[float], str]) -> None:
        self.running = state.offset is not None and state.doubt is None  # and the clock was believed
        self.state = state._replace(offset=look.wall - look.steady)
        self.look, self.show = look, show
        self.until, self.began = dict(state.until), dict(state.began)
        self.actions: list[Action] = []

    def say(self, text: str, entry: str = "") -> None:
        self.actions.append(Action(NOTE, entry, text))


def decide(state: State, times: Mapping[str, Times], owner: str, look: Look, show: Callable[[float], str]) -> Decision:
    """What to do now, and when to look again. ``owner``: the profile whose schedule it is; ``show`` tells a time."""
    jump = 0.0 if state.offset is None else look.wall - look.steady - state.offset
    if abs(jump) > STEP:
        if state.set_at is not None and look.steady < state.set_at + AGAIN:
            return Decision(state, steady=state.set_at + AGAIN)
        state = state._replace(set_at=look.steady)
    work = _Work(state, look, show)
    if not _believed(work):
        patience = None if look.wall < RELEASED else (work.state.doubt or 0.0) + PATIENCE
        return Decision(work.state, tuple(work.actions), steady=patience)
    at = _time(work, times, jump)
    cause = f"the clock was set forward by {amount(jump)}" if jump > ON_TIME else "nothing kept the schedule then"
    for name, each in times.items():
        if name not in work.until and look.fresh:
            _begin_anew(work, each, at)
        since = work.until.setdefault(name, at)
        (_window if each.entry.is_window else _moment)(work, each, since, at, cause)
        work.until[name] = at
    _go_home(work, times, owner)
    _insist(work)
    want = work.state.want
    due = [later for each in times.values() if (later := _next(each, at)) is not None]
    made = work.state._replace(until=work.until, began=work.began)
    return Decision(made, tuple(work.actions), min(due, default=None), None if want is None else want.due)


def _believed(work: _Work) -> bool:
    """Whether the clock may be right. A clock that is set while it is watched is meant."""
    state, look = work.state, work.look
    waited = state.doubt is not None and look.steady >= state.doubt + PATIENCE
    behind = look.wall < state.newest - BACK and not work.running
    if look.wall < RELEASED or (behind and not waited):
        if state.doubt is None:
            before = (
                "this program was made" if look.wall < RELEASED else f"{work.show(state.newest)}, which was already"
            )
            work.say(f"the clock says {work.show(look.wall)}, before {before}: nothing is due until it is set")
            work.state = state._replace(doubt=look.steady)
        return False
    if state.doubt is not None:
        late = f", behind the record, but no better time has come for {amount(PATIENCE)}" if behind else ""
        work.say(f"the clock says {work.show(look.wall)}{late}: the schedule goes by it")
        work.state = state._replace(doubt=None)
    return True


def _time(work: _Work, times: Mapping[str, Times], jump: float) -> float:
    """The time of the schedule: ``wall``, or where it stands still."""
    wall, newest = work.look.wall, work.state.newest
    back = newest - wall
    if back > BACK:
        if newest:
            work.say(
                f"the clock was set back by {amount(back)}, to {work.show(wall)}: the schedule goes by it from now on"
            )
        work.until = {name: min(until, wall) for name, until in work.until.items()}
    elif back > 0:
        if jump < -ON_TIME or (not work.running and back > ON_TIME):
            again = [name for name, each in times.items() if _due(each, wall, newest)]
            what = f"; what was due since then is not done again: {', '.join(again)}" if again else ""
            by = amount(max(back, -jump))
            work.say(f"the clock was set back by {by}: the schedule waits for {work.show(newest)}{what}")
        return newest
    work.state = work.state._replace(newest=wall)
    return wall


def _due(times: Times, since: float, at: float) -> bool:
    later = times.next(since)
    return later is not None and later <= at


def _next(times: Times, at: float) -> float | None:
    """When a window opens or closes next, or a moment comes."""
    begin = times.open_since(at) if times.entry.is_window else None
    later = times.next(at)
    if begin is None:
        return later
    return times.end(begin) if later is None else min(times.end(begin), later)


def _window(work: _Work, times: Times, since: float, at: float, cause: str) -> None:
    entry = times.entry
    name, begin = entry.name, times.open_since(at)
    head = f"schedule {name}: window {words(entry)}"
    past = times.last(at if begin is None else begin - 1, since - 2 * (entry.lasts or 86_400.0))
    if past is not None and since < times.end(past) <= (at if begin is None else begin):
        if past > since:
            more = " (and others before it)" if (times.next(since) or past) < past else ""
            work.say(f"{head}, that of {work.show(past)}{more} was missed: {cause}", name)
        elif begin is None and name not in work.began:
            _act(work, times, END, f"{head} has ended at {work.show(times.end(past))}, while {cause}")
    if begin is not None:
        before = work.began.get(name, begin)
        if times.end(before) < begin:
            work.say(f"{head}, its end at {work.show(times.end(before))} was missed: {cause}", name)
        if work.look.fresh or name not in work.began:
            late = "begins" if at - begin <= ON_TIME else f"is open since {work.show(begin)}"
            _act(work, times, BEGIN, f"{head} {late}")
        work.began[name] = begin
    elif name in work.began:
        del work.began[name]
        _act(work, times, END, f"{head} ends")


def _begin_anew(work: _Work, times: Times, at: float) -> None:
    """A window new to us may have services that another schedule has left running: the agent knows."""
    entry = times.entry
    if entry.is_window and entry.services and times.open_since(at) is None:
        _act(work, times, END, f"schedule {entry.name}: window {words(entry)} is closed")


def _moment(work: _Work, times: Times, since: float, at: float, cause: str) -> None:
    entry = times.entry
    latest = times.last(at, since)
    if latest is None:
        return
    first = times.next(since)
    more = " (and others before it)" if first is not None and first < latest else ""
    late = at - latest
    head = f"schedule {entry.name}: {words(entry)}"
    if late <= ON_TIME:
        missed = f"; others since {work.show(first)} were missed: {cause}" if first and more else ""
        _act(work, times, FIRE, f"{head} is due{missed}")
    elif late <= entry.grace:
        _act(work, times, FIRE, f"{head} was missed at {work.show(latest)}{more}: {cause}; it is made up for now")
    else:
        text = f"{head} was missed at {work.show(latest)}{more}: {cause}; {amount(late)} late is more than its grace of"
        work.say(f"{text} {amount(entry.grace)}, so it is left out", entry.name)


def _act(work: _Work, times: Times, does: str, text: str) -> None:
    """Ask for services; or want a profile, until it is in force."""
    entry = times.entry
    if not entry.profile:
        verb = "stops" if does == END else "runs"
        work.actions.append(Action(does, entry.name, f"{text}: {verb} {', '.join(entry.services)}"))
    elif does != END:
        _want(work, Want(entry.name, does, entry.profile, text, work.look.steady))


def _go_home(work: _Work, times: Mapping[str, Times], owner: str) -> None:
    """Out of every window for a profile, the one whose schedule this is is in force again."""
    windows = [each.entry for each in times.values() if each.entry.profile and each.entry.is_window]
    wanted, profile = work.state.want, work.look.profile
    if any(entry.name in work.began for entry in windows) or profile in ("", owner):
        return
    if wanted is None or wanted.does == BEGIN:
        entry = next((entry for entry in windows if entry.profile == profile), None)
        closed = f"schedule {entry.name}: window {words(entry)} ends" if entry else f"no window for {profile} is open"
        _want(work, Want(entry.name if entry else "", END, owner, closed, work.look.steady))


def _want(work: _Work, want: Want) -> None:
    if work.look.profile != want.profile:
        work.state = work.state._replace(want=want)
    elif work.state.want is not None:
        work.state = work.state._replace(want=None)


def _insist(work: _Work) -> None:
    """Ask for the profile that is wanted, again with growing pauses: the agent may be busy, or have rolled back."""
    want, look = work.state.want, work.look
    if want is None:
        return
    abandoned = want.does == BEGIN and want.entry not in work.began
    # Done and yet another profile: somebody has switched since. The way back is not theirs to give up.
    overruled = want.tries > 1 and look.switch == "done" and want.does != END
    if look.profile == want.profile or abandoned or overruled:
        work.state = work.state._replace(want=None)
    elif look.steady < want.due:
        return
    elif look.switch == "running":
        work.state = work.state._replace(want=want._replace(due=look.steady + AGAIN))
    elif want.tries > TRIES:
        work.say(f"{want.text}: {want.profile} did not come into force, and is given up until next time", want.entry)
        work.state = work.state._replace(want=None)
    else:
        again = "" if want.tries == 1 else f", attempt {want.tries}"
        work.actions.append(Action(want.does, want.entry, f"{want.text}: switches to {want.profile}{again}"))
        pause = AGAIN * 2 ** (want.tries - 1)
        work.state = work.state._replace(want=want._replace(due=look.steady + pause, tries=want.tries + 1))
