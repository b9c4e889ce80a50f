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


def test_readiness_of_a_closed_descriptor_is_not_taken_for_that_of_the_next_with_its_number() -> None:
    loop, seen = Loop(Clock()), []
    pipes = [os.pipe() for _ in range(3)]
    quiet = pipes[2][0]

    def replace(own: int, other: int) -> None:
        os.read(own, 1)
        seen.append("first")
        loop.forget(other)
        os.dup2(quiet, other)
        loop.watch(other, READ, lambda _events: seen.append("of what was closed"))

    for index in (0, 1):
        own, other = pipes[index][0], pipes[1 - index][0]
        loop.watch(own, READ, lambda _events, own=own, other=other: replace(own, other))  # type: ignore[misc]
        os.write(pipes[index][1], b"x")
    loop.turn(0)
    assert seen == ["first"]
    os.write(pipes[2][1], b"x")
    loop.turn(0)
    assert "of what was closed" in seen, "its own readiness is"
    for fd in (fd for pipe in pipes for fd in pipe):
        os.close(fd)
