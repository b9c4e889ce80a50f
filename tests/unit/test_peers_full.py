"""The full side of the heartbeats."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.peers.full import Full, Heard, Send
from edge_agent.peers.light import Note, Tick
from edge_agent.peers.wire import Beat, Echo, pack_beat, unpack_beat

A, B = "a" * 40, "b" * 40


def beat(sequence: int = 1, interval: float = 10.0, node: str = "light") -> bytes:
    return pack_beat(Beat(node, "0.1.0", sequence, interval))


def test_a_beat_is_echoed_to_where_it_came_from() -> None:
    node = Full("hub", "0.2.0", [A])
    send, note = node.step(Heard(A, b"route", beat(7)), 5.0)
    assert isinstance(send, Send)
    assert send.route == b"route"
    assert unpack_beat(send.data) == Echo("hub", "0.2.0", 7)
    assert isinstance(note, Note)
    assert node.views()[0].state == "up"
    assert node.views()[0].node == "light"
    assert node.views()[0].last_seen == 5.0


def test_only_the_first_beat_is_said() -> None:
    node = Full("hub", "0.2.0", [A])
    node.step(Heard(A, b"r", beat(1)), 0.0)
    assert len(node.step(Heard(A, b"r", beat(2)), 10.0)) == 1


def test_three_missed_intervals_of_its_own_make_a_node_down_and_a_beat_brings_it_back() -> None:
    node = Full("hub", "0.2.0", [A, B])
    assert node.deadline() is None
    node.step(Heard(A, b"r", beat(interval=10.0)), 0.0)
    node.step(Heard(B, b"s", beat(interval=1.0)), 0.0)
    assert node.deadline() == 3.0
    (note,) = node.step(Tick(), 3.0)
    assert isinstance(note, Note)
    assert [view.state for view in node.views()] == ["up", "down"]
    assert node.deadline() == 30.0
    node.step(Heard(B, b"t", beat(2)), 4.0)
    assert node.views()[1].state == "up"


def test_a_key_that_is_not_configured_is_not_heard() -> None:
    node = Full("hub", "0.2.0", [A])
    assert node.step(Heard(B, b"r", beat()), 0.0) == []
    assert [view.key for view in node.views()] == [A]


def test_an_echo_is_not_echoed() -> None:
    node = Full("hub", "0.2.0", [A])
    assert node.step(Heard(A, b"r", pack_beat(Echo("x", "0.1.0", 1))), 0.0) == []
    assert node.views()[0].refused == 1


@given(st.lists(st.binary(max_size=80), max_size=20))
def test_garbage_is_counted_said_once_and_never_answered(messages: list[bytes]) -> None:
    node = Full("hub", "0.2.0", [A])
    actions = [action for data in messages for action in node.step(Heard(A, b"r", data), 0.0)]
    assert len(actions) == min(1, len(messages))
    assert all(isinstance(action, Note) for action in actions)
    assert node.views()[0].refused == len(messages)
    assert node.views()[0].state == "never"
