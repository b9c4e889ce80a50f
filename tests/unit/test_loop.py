"""The loop: descriptors, timers in order, nothing at rest. Time is an input."""

from __future__ import annotations

import os

from edge_agent.host.loop import READ, Loop


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_timers_fire_in_order_once_due() -> None:
    clock, seen = Clock(), []
    loop = Loop(clock)
    for due in (103.0, 101.0, 102.0):
        loop.at(due, lambda due=due: seen.append(due))  # type: ignore[misc]
    loop.turn(0)
    assert seen == []
    clock.now = 102.5
    loop.turn(0)
    loop.turn(0)
    assert seen == [101.0, 102.0]


def test_a_cancelled_timer_is_not_called_and_not_waited_for() -> None:
    clock, seen = Clock(), []
    loop = Loop(clock)
    timer = loop.at(101.0, lambda: seen.append(1))
    timer.cancel()
    timer.cancel()
    clock.now = 200.0
    loop.turn(0)
    assert seen == []
    assert loop._timeout(None) is None, "no timer, no wakeup"


def test_a_descriptor_forgotten_by_another_callback_is_not_called() -> None:
    loop, seen = Loop(Clock()), []
    pipes = [os.pipe(), os.pipe()]
    for read, write in pipes:
        os.write(write, b"x")
        other = next(fd for fd, _ in pipes if fd != read)

        def first_come(_events: int, read: int = read, other: int = other) -> None:
            seen.append(read)
            loop.forget(other)

        loop.watch(read, READ, first_come)
    loop.turn(0)
    assert len(seen) == 1
    for ends in pipes:
        for fd in ends:
            loop.forget(fd)
            os.close(fd)
    loop.turn(0)


def test_watching_again_changes_mask_and_call() -> None:
    loop, seen = Loop(Clock()), []
    read, write = os.pipe()
    loop.watch(read, 0, lambda _events: seen.append("first"))
    loop.watch(read, READ, lambda _events: seen.append("second"))
    os.write(write, b"x")
    loop.turn(0)
    assert seen == ["second"]
    loop.forget(read)
    os.close(read)
    os.close(write)
