"""The door to the clocks. Nobody sets this machine's clock for a test: tests/guest does, in a machine of its own."""

from __future__ import annotations

import select
import time

from edge_agent.services.clock import WallTimer, steady, wall


def test_a_timer_is_readable_once_its_time_has_come() -> None:
    timer = WallTimer()
    try:
        poll = select.poll()
        poll.register(timer.fd, select.POLLIN)
        assert timer.arm(None)
        assert not poll.poll(0)
        assert timer.arm(wall() + 3600)
        assert not poll.poll(0)
        assert timer.arm(wall() - 10)
        assert poll.poll(10_000)
        timer.clear()
        timer.clear()
        assert not poll.poll(0)
    finally:
        timer.close()


def test_the_steady_clock_counts_from_the_boot() -> None:
    assert steady() >= time.monotonic() - 1
