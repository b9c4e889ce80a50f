"""The light side of the heartbeats, by example and by random histories."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.peers import light
from edge_agent.peers.light import Action, Close, Heard, Light, Note, Open, Send, Target, Tick
from edge_agent.peers.wire import Beat, Echo, pack_beat, unpack_beat

KEY = "k" * 40


def machine(peers: int = 1, heartbeat: float = 30.0, chance: float = 1.0) -> Light:
    return Light(
        "me", "0.1.0", [Target(f"tcp://10.0.0.{i}:4001", KEY) for i in range(peers)], heartbeat, lambda: chance
    )


def beat_in(actions: list[Action]) -> Beat:
    sent = [action for action in actions if isinstance(action, Send)]
    assert len(sent) == 1
    beat = unpack_beat(sent[0].data)
    assert isinstance(beat, Beat)
    return beat


def echo(sequence: int, node: str = "full") -> bytes:
    return pack_beat(Echo(node, "0.2.0", sequence))


def up(node: Light, now: float = 0.0) -> None:
    beat = beat_in(node.step(Tick(), now))
    node.step(Heard(0, echo(beat.sequence)), now + 0.25)


def test_without_peers_nothing_is_ever_due() -> None:
    node = machine(peers=0)
    assert node.deadline() is None
    assert node.step(Tick(), 0.0) == []


def test_it_connects_and_says_who_it_is() -> None:
    actions = machine().step(Tick(), 100.0)
    assert actions[0] == Open(0)
    assert beat_in(actions) == Beat("me", "0.1.0", 1, 30.0)


def test_an_echo_brings_the_peer_up_with_its_name_and_round_trip_time() -> None:
    node = machine()
    node.step(Tick(), 100.0)
    (note,) = node.step(Heard(0, echo(1)), 100.25)
    assert isinstance(note, Note)
    (view,) = node.views()
    assert (view.state, view.node, view.release, view.rtt, view.last_seen) == ("up", "full", "0.2.0", 0.25, 100.25)


def test_beats_follow_at_the_interval_without_drift() -> None:
    node = machine()
    up(node)
    assert node.deadline() == 30.0
    beat = beat_in(node.step(Tick(), 30.0))
    assert beat.sequence == 2
    assert node.views()[0].state == "up"  # waiting for the echo is not down
    assert node.step(Heard(0, echo(2)), 30.1) == []
    assert node.deadline() == 60.0


def test_a_silent_peer_is_dropped_and_tried_again_ever_more_rarely() -> None:
    node = machine()
    now, waits = 0.0, []
    for _ in range(9):
        node.step(Tick(), now)
        now += light.ANSWER_WITHIN
        assert Close(0) in node.step(Tick(), now)
        assert node.views()[0].state == "down"
        due = node.deadline()
        assert due is not None
        waits.append(due - now)
        now = due
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_loss_of_a_peer_that_was_up_is_said_and_retried_soon() -> None:
    node = machine()
    up(node)
    node.step(Tick(), 30.0)
    actions = node.step(Tick(), 40.0)
    assert actions[0] == Close(0)
    assert isinstance(actions[1], Note)
    assert node.deadline() == 41.0


def test_only_the_first_failure_in_a_row_is_said() -> None:
    node = machine()
    notes = []
    now = 0.0
    for _ in range(20):
        notes += [action for action in node.step(Tick(), now) if isinstance(action, Note)]
        now = node.deadline() or 0.0
    assert len(notes) == 1


def test_retries_of_many_nodes_are_spread() -> None:
    waits = []
    for chance in (0.0, 0.5, 1.0):
        node = machine(chance=chance)
        node.step(Tick(), 0.0)
        node.step(Tick(), 10.0)
        waits.append((node.deadline() or 0.0) - 10.0)
    assert waits == [0.75, 0.875, 1.0]


def test_the_patience_is_never_longer_than_the_interval() -> None:
    node = machine(heartbeat=0.5)
    node.step(Tick(), 0.0)
    assert node.deadline() == 0.5


def test_an_echo_of_an_older_beat_a_beat_and_garbage_are_refused() -> None:
    node = machine()
    up(node)
    node.step(Tick(), 30.0)
    for data in (echo(1), echo(99), pack_beat(Beat("full", "0.2.0", 2, 1.0)), b"", b"\xc1"):
        node.step(Heard(0, data), 30.1)
    view = node.views()[0]
    assert view.refused == 5
    assert node.deadline() == 40.0  # still waiting


def test_what_was_not_asked_for_is_refused() -> None:
    node = machine()
    up(node)
    assert node.step(Heard(0, echo(1, "other")), 1.0) == []
    assert node.views()[0].node == "full"
    assert node.views()[0].refused == 1


def test_peers_do_not_disturb_each_other() -> None:
    node = machine(peers=2)
    node.step(Tick(), 0.0)
    node.step(Heard(1, echo(1)), 0.1)
    node.step(Tick(), 10.0)
    assert [view.state for view in node.views()] == ["down", "up"]


EVENTS = st.lists(
    st.tuples(st.floats(0, 100), st.none() | st.tuples(st.integers(0, 1), st.integers(0, 5) | st.binary(max_size=20))),
    max_size=60,
)


@given(EVENTS)
def test_whatever_happens_there_is_one_connection_per_peer_and_always_a_next_time(
    history: list[tuple[float, tuple[int, int | bytes] | None]],
) -> None:
    node, now = machine(peers=2), 0.0
    opened: set[int] = set()
    for passed, heard in history:
        now += passed
        if heard is None:
            actions = node.step(Tick(), now)
            due = node.deadline()
            assert due is not None
            assert due > now
        else:
            peer, content = heard
            actions = node.step(Heard(peer, content if isinstance(content, bytes) else echo(content)), now)
        for action in actions:
            if isinstance(action, Open):
                assert action.peer not in opened
                opened.add(action.peer)
            elif isinstance(action, Close):
                opened.remove(action.peer)
            elif isinstance(action, Send):
                assert action.peer in opened
        assert opened == {index for index, view in enumerate(node.views()) if view.state != "down"}
