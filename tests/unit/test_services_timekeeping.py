"""The timekeeper's decisions: two clocks in, what is asked of the agent out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.model import RELEASED, Entry
from edge_agent.schedule import Times
from edge_agent.services.timekeeping import AGAIN, BACK, PATIENCE, Action, Decision, Look, State, decide

HOUR = 3600.0
NIGHT = Entry("night", begin=22 * 60, end=6 * 60, services=("analytics",))
REPORT = Entry("report", cron="0 2 * * *", services=("report",))
SAVING = Entry("saving", begin=22 * 60, end=6 * 60, profile="night")
FOR_GOOD = Entry("for-good", cron="0 12 * * *", profile="weekend")


def at(text: str) -> float:
    return datetime.fromisoformat(f"2026-{text}").replace(tzinfo=UTC).timestamp()


def show(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M")


class Machine:
    """A timekeeper, its clocks and its agent. What it asks for is kept in ``asked``; a switch comes true at once."""

    def __init__(self, *entries: Entry, wall: float, state: State | None = None) -> None:
        self.times = {entry.name: Times(entry, UTC) for entry in entries}
        self.state = state or State()
        self.wall, self.steady = wall, 1000.0
        self.profile, self.switch, self.fails = "day", "", False
        self.asked: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.looks = 0
        self.decision = Decision(self.state)
        self.look(fresh=True)
        self.closed = [name for does, name in self.asked if does == "end" and self.said[0].count("is closed")]
        if self.closed:
            self.asked, self.said = [], []

    def look(self, *, fresh: bool = False) -> list[Action]:
        look = Look(self.wall, self.steady, self.profile, self.switch, fresh)
        self.decision = decide(self.state, self.times, "day", look, show)
        self.state = self.decision.state
        self.looks += 1
        for action in self.decision.actions:
            self.said.append(action.text)
            if action.does != "note":
                self.asked.append((action.does, action.entry))
                self._obey(action)
        return list(self.decision.actions)

    def _obey(self, action: Action) -> None:
        entry = self.times[action.entry].entry if action.entry else Entry("")
        if entry.services:
            return
        self.switch = "failed" if self.fails else "done"
        if not self.fails:
            self.profile = "day" if action.does == "end" else entry.profile

    def set(self, wall: float) -> list[Action]:
        """Somebody sets the clock: the timer wakes it at once."""
        self.wall = wall
        return self.look()

    def pass_(self, seconds: float) -> None:
        """Time goes by, and it looks when it wanted to."""
        end, idle = self.steady + seconds, 0
        while True:
            waits = []
            if self.decision.wall is not None:
                waits.append(max(0.0, self.decision.wall - self.wall))
            if self.decision.steady is not None:
                waits.append(max(0.0, self.decision.steady - self.steady))
            wait = min(waits, default=math.inf)
            if self.steady + wait > end:
                break
            self.wall, self.steady = self.wall + wait, self.steady + wait
            self.look()
            idle = 0 if wait else idle + 1
            assert idle < 5, f"it looks again and again: {self.decision}, at {self.wall} {self.steady}"
        self.wall, self.steady = self.wall + end - self.steady, end

    def sleep(self, seconds: float) -> None:
        """The machine is suspended: CLOCK_BOOTTIME goes on, and the timer fires when it wakes."""
        self.wall, self.steady = self.wall + seconds, self.steady + seconds
        self.look()

    def restart(self, away: float = 0.0) -> Machine:
        """A new process with what is on disk."""
        kept = State(self.state.until, self.state.newest)
        return Machine(*(each.entry for each in self.times.values()), wall=self.wall + away, state=kept)

    def took(self) -> list[tuple[str, str]]:
        asked, self.asked = self.asked, []
        return asked

    def heard(self) -> list[str]:
        said, self.said = self.said, []
        return said


# -- as it should be -------------------------------------------------------------------------------------------------


def test_a_day_of_a_window_and_a_moment_takes_a_look_each() -> None:
    machine = Machine(NIGHT, REPORT, wall=at("11-24T12:00"))
    assert machine.took() == []
    machine.pass_(24 * HOUR)
    assert machine.took() == [("begin", "night"), ("fire", "report"), ("end", "night")]
    assert machine.heard() == [
        "schedule night: window 22:00-06:00 begins: runs analytics",
        "schedule report: cron 0 2 * * * is due: runs report",
        "schedule night: window 22:00-06:00 ends: stops analytics",
    ]
    assert machine.looks == 4  # no look without a cause


def test_in_the_middle_of_a_window_a_new_process_asks_for_it() -> None:
    machine = Machine(NIGHT, wall=at("11-24T23:00"))
    assert machine.took() == [("begin", "night")]
    assert "is open since 2026-11-24 22:00" in machine.heard()[0]
    assert machine.restart(HOUR).took() == [("begin", "night")]
    late = machine.restart(9 * HOUR)
    assert late.took() == [("end", "night")]
    assert "has ended at 2026-11-25 06:00, while nothing kept the schedule then" in late.heard()[0]
    assert late.restart().took() == []


def test_what_another_schedule_may_have_left_running_is_ended_once() -> None:
    machine = Machine(NIGHT, SAVING, wall=at("11-24T12:00"))
    assert machine.closed == ["night"]
    assert machine.restart().closed == []
    assert Machine(NIGHT, wall=at("11-24T23:00")).closed == []


def test_a_new_agent_is_asked_again() -> None:
    machine = Machine(NIGHT, wall=at("11-24T23:00"))
    machine.took()
    machine.look()
    assert machine.took() == []
    machine.look(fresh=True)
    assert machine.took() == [("begin", "night")]


def test_while_it_was_away() -> None:
    machine = Machine(NIGHT, REPORT, wall=at("11-24T12:00"))
    soon = machine.restart(14.5 * HOUR)
    assert soon.took() == [("begin", "night"), ("fire", "report")]
    assert "was missed at 2026-11-25 02:00: nothing kept the schedule then; it is made up for now" in soon.heard()[1]
    late = machine.restart(23 * HOUR)
    assert late.took() == []
    window, moment = late.heard()
    assert "that of 2026-11-24 22:00 was missed: nothing kept the schedule then" in window
    assert "9 h late is more than its grace of 1 h, so it is left out" in moment
    assert late.restart().heard() == []


def test_what_is_new_in_a_schedule_has_not_missed_the_past() -> None:
    machine = Machine(NIGHT, wall=at("11-24T12:00"))
    machine.pass_(48 * HOUR)
    state = State(machine.state.until, machine.state.newest)
    new = Machine(NIGHT, REPORT, wall=machine.wall, state=state)
    assert (new.took(), new.heard()) == ([], [])


# -- switches --------------------------------------------------------------------------------------------------------


def test_into_a_profile_and_back() -> None:
    machine = Machine(SAVING, wall=at("11-24T12:00"))
    machine.pass_(11 * HOUR)
    assert (machine.took(), machine.profile) == ([("begin", "saving")], "night")
    machine.pass_(8 * HOUR)
    assert (machine.took(), machine.profile) == ([("end", "saving")], "day")
    assert machine.decision.steady is None
    assert machine.heard() == [
        "schedule saving: window 22:00-06:00 begins: switches to night",
        "schedule saving: window 22:00-06:00 ends: switches to day",
    ]


def test_a_person_who_switches_back_is_not_overruled() -> None:
    machine = Machine(SAVING, REPORT, wall=at("11-24T21:59:30"))
    machine.pass_(40)
    machine.took()
    machine.profile = "day"
    machine.pass_(6 * HOUR)
    assert machine.took() == [("fire", "report")]
    machine.pass_(24 * HOUR)
    assert ("begin", "saving") in machine.took()


def test_a_switch_that_fails_is_tried_again_with_growing_pauses_and_given_up() -> None:
    machine = Machine(SAVING, wall=at("11-24T21:59"))
    machine.fails = True
    machine.pass_(30 * 60)
    assert machine.took() == [("begin", "saving")] * 5  # at 0, 1, 3, 7 and 15 minutes
    machine.pass_(4 * HOUR)
    assert len(machine.took()) == 2
    assert "given up until next time" in machine.heard()[-1]
    machine.fails = False
    machine.pass_(24 * HOUR)
    assert machine.took() == [("begin", "saving")]


def test_a_switch_that_is_not_over_yet_is_left_alone() -> None:
    machine = Machine(SAVING, wall=at("11-24T22:00"))
    machine.profile, machine.switch = "day", "running"
    machine.took()
    machine.pass_(10 * 60)
    assert machine.took() == []
    machine.profile, machine.switch = "night", "done"
    machine.pass_(10 * 60)
    assert (machine.took(), machine.decision.steady) == ([], None)


def test_a_new_process_outside_of_every_window_goes_home() -> None:
    machine = Machine(SAVING, wall=at("11-24T12:00"), state=State(newest=at("11-24T03:00")))
    machine.profile = "night"
    machine.look(fresh=True)
    assert (machine.took(), machine.profile) == ([("end", "saving")], "day")
    lost = Machine(REPORT, wall=at("11-24T12:00"))
    lost.profile = "night"  # its window has been taken out of the schedule
    lost.look()
    assert (lost.took(), lost.profile) == ([("end", "")], "day")


def test_a_moment_switches_once() -> None:
    machine = Machine(FOR_GOOD, wall=at("11-24T11:59"))
    machine.pass_(10 * 60)
    assert (machine.took(), machine.profile) == ([("fire", "for-good")], "weekend")


# -- clocks that jump ------------------------------------------------------------------------------------------------


def test_from_1970_to_now() -> None:
    machine = Machine(NIGHT, REPORT, wall=100.0, state=State({"night": at("11-24T06:00")}, at("11-24T06:00")))
    assert machine.took() == []
    assert machine.heard() == [
        "the clock says 1970-01-01 00:01, before this program was made: nothing is due until it is set"
    ]
    assert (machine.decision.wall, machine.decision.steady) == (None, None)
    machine.pass_(5 * HOUR)
    assert (machine.took(), machine.heard()) == ([], [])
    machine.set(at("11-24T23:00"))
    assert machine.took() == [("begin", "night")]
    assert machine.heard()[0] == "the clock says 2026-11-24 23:00: the schedule goes by it"


def test_at_the_first_start_ever_the_clock_is_taken_as_it_is() -> None:
    assert Machine(REPORT, wall=at("11-24T12:00")).heard() == []


def test_a_clock_behind_the_record_is_believed_in_the_end() -> None:
    machine = Machine(REPORT, wall=at("11-20T00:30"), state=State({}, at("11-24T12:00")))
    assert machine.decision.steady == machine.steady + PATIENCE
    assert "before 2026-11-24 12:00, which was already" in machine.heard()[0]
    machine.heard()
    machine.pass_(2 * PATIENCE)
    assert machine.took() == [("fire", "report")]
    assert "no better time has come for 1 h" in machine.heard()[0]


def test_a_clock_a_little_behind_the_record_stands_still() -> None:
    machine = Machine(REPORT, wall=at("11-24T01:30"), state=State({"report": at("11-24T02:10")}, at("11-24T02:10")))
    machine.pass_(2 * HOUR)
    assert machine.took() == []
    assert "waits for 2026-11-24 02:10; what was due since then is not done again: report" in machine.heard()[0]


def test_forward_by_hours_and_by_years() -> None:
    machine = Machine(NIGHT, REPORT, Entry("often", cron="* * * * *", services=("x",)), wall=at("11-24T12:00:30"))
    machine.set(at("11-25T02:30:30"))
    assert machine.took() == [("begin", "night"), ("fire", "report"), ("fire", "often")]
    assert "others since 2026-11-24 12:01 were missed: the clock was set forward by 14 h 30 min" in machine.heard()[2]
    machine.pass_(AGAIN)
    machine.took()
    machine.heard()
    machine.set(at("11-25T12:00:30") + 3653 * 86_400)
    assert machine.took() == [("end", "night"), ("fire", "often")]
    assert any("report: cron 0 2 * * * was missed at 2036" in text and "and others" in text for text in machine.said)


def test_back_by_an_hour_does_nothing_twice() -> None:
    machine = Machine(NIGHT, REPORT, wall=at("11-24T21:00"))
    machine.pass_(5.5 * HOUR)
    assert machine.took() == [("begin", "night"), ("fire", "report")]
    machine.heard()
    machine.set(at("11-25T01:30"))
    assert machine.took() == []
    (said,) = machine.heard()
    assert said.startswith("the clock was set back by 1 h: the schedule waits for 2026-11-25 02:00; ")
    assert said.endswith("what was due since then is not done again: report")
    machine.pass_(6 * HOUR)
    assert machine.took() == [("end", "night")]


def test_back_by_years_is_a_correction() -> None:
    machine = Machine(NIGHT, REPORT, wall=at("11-24T23:00") + 3653 * 86_400)
    machine.took()
    machine.set(at("11-24T12:00"))
    assert machine.took() == [("end", "night")]
    assert "the clock was set back by 10 y" in machine.said[-2]
    machine.pass_(24 * HOUR)
    assert machine.took() == [("begin", "night"), ("fire", "report"), ("end", "night")]


def test_back_to_1970_while_it_runs() -> None:
    machine = Machine(NIGHT, wall=at("11-24T23:00"))
    machine.took()
    machine.set(50.0)
    assert machine.took() == []
    machine.pass_(HOUR)
    machine.set(at("11-25T00:00"))
    assert machine.took() == []
    machine.pass_(7 * HOUR)
    assert machine.took() == [("end", "night")]


def test_a_long_sleep_is_no_jump_and_loses_nothing_in_silence() -> None:
    machine = Machine(NIGHT, REPORT, wall=at("11-24T12:00"))
    machine.sleep(23 * HOUR)
    assert machine.took() == []
    assert len(machine.heard()) == 2
    machine.sleep(12 * HOUR)
    assert machine.took() == [("begin", "night")]


def test_a_clock_that_is_slewed_is_no_jump() -> None:
    machine = Machine(REPORT, wall=at("11-24T12:00"))
    machine.steady += 1.0
    machine.look()
    assert machine.state.set_at is None


# -- storms ----------------------------------------------------------------------------------------------------------

MINUTELY = Entry("minutely", cron="* * * * *", services=("a",))
ENTRIES = (
    NIGHT,
    SAVING,
    REPORT,
    FOR_GOOD,
    MINUTELY,
    Entry("hours", cron="30 */2 * * *", lasts=1800.0, services=("b",)),
)
STEPS = st.one_of(
    st.tuples(st.just("pass"), st.floats(0, 600)),
    st.tuples(st.just("sleep"), st.floats(0, 40 * HOUR)),
    st.tuples(st.just("jump"), st.floats(-10 * HOUR, 10 * HOUR)),
    st.tuples(st.just("jump"), st.floats(-3660 * 86_400, 3660 * 86_400)),
    st.tuples(st.just("set"), st.floats(0, RELEASED + 40 * 366 * 86_400)),
)


def run(machine: Machine, steps: Iterable[tuple[str, float]]) -> Iterable[float]:
    """Carry the steps out; the real seconds that each has taken."""
    for what, value in steps:
        before = machine.steady
        if what == "pass":
            machine.pass_(value)
        elif what == "sleep":
            machine.sleep(value)
        else:
            machine.set(max(0.0, machine.wall + value if what == "jump" else value))
        yield machine.steady - before


@settings(max_examples=30, deadline=None)
@given(st.lists(STEPS, max_size=25), st.booleans())
def test_no_clock_makes_a_storm(steps: list[tuple[str, float]], fails: bool) -> None:
    machine = Machine(*ENTRIES, wall=at("11-24T12:00"))
    machine.fails = fails
    passed = 0.0
    for seconds in run(machine, steps):
        passed += seconds
        # In each minute at most one look for the clock and one for the time, each with one action an entry.
        assert len(machine.asked) <= 2 * len(ENTRIES) * (passed / AGAIN + 2)
        assert len(machine.said) <= 2 * (len(ENTRIES) + 2) * (passed / AGAIN + 2)
    assert machine.looks <= 4 * (passed / AGAIN + 2) + len(steps)


@settings(max_examples=30, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_nothing_is_missed_in_silence(steps: list[tuple[str, float]]) -> None:
    """Whatever a believed clock passes over is done or told of, by entry and in each look."""
    machine = Machine(NIGHT, REPORT, wall=at("11-24T12:00"))
    kept = machine.state
    for what, value in steps:
        machine.said, machine.asked = [], []
        if what in ("pass", "sleep"):
            machine.sleep(value)
        else:
            machine.set(max(0.0, machine.wall + value if what == "jump" else value))
        for name, times in machine.times.items():
            before, after = kept.until[name], machine.state.until[name]
            first = times.next(before)
            if first is None or first > after or after - before < 0:
                continue
            assert any(name in text for text in machine.said), (name, show(before), show(after))
        kept = machine.state


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-BACK + 1, 2 * HOUR), max_size=30))
def test_a_clock_that_goes_back_and_forth_does_nothing_twice(jumps: list[float]) -> None:
    machine = Machine(REPORT, wall=at("11-24T23:00"))
    top = machine.wall
    for jump in jumps:
        machine.pass_(2 * AGAIN)
        top = max(top, machine.wall)
        machine.set(max(machine.wall + jump, top - BACK + 1))
        top = max(top, machine.wall)
    machine.pass_(2 * AGAIN)
    days = (max(top, machine.wall) - at("11-24T02:00")) // 86_400
    assert len(machine.asked) <= days


@settings(max_examples=30, deadline=None)
@given(st.lists(STEPS, max_size=15), st.integers(0, 23))
def test_in_the_end_it_is_as_it_should_be(steps: list[tuple[str, float]], hour: int) -> None:
    """Levels: when the clock has been right for four hours, windows and profile are what the time says."""
    machine = Machine(NIGHT, SAVING, wall=at("11-24T12:00"))
    for _ in run(machine, steps):
        pass
    machine.pass_(AGAIN)
    right = at("11-24T00:30") + hour * HOUR
    machine.set(right)
    machine.pass_(PATIENCE + BACK + HOUR)
    open_ = machine.times["night"].open_since(machine.wall) is not None
    begun = [does for does, name in machine.asked if name == "night"]
    assert (begun[-1:] == ["begin"]) == open_
    assert machine.profile == ("night" if open_ else "day")
