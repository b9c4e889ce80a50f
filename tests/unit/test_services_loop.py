"""The loop that services share: what becomes of all when one breaks, and how long it waits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge_agent.services import notify
from edge_agent.services.errors import StartError
from edge_agent.services.loop import Loop
from edge_agent.services.options import Options
from edge_agent.services.runtime import Runtime, Service
from edge_agent.services.signals import Stop

if TYPE_CHECKING:
    from edge_agent.services.requests import Operation


class Counting(Service):
    """Due at once; ends the loop, or breaks, at its third turn."""

    def __init__(self, name: str, base: Path, stop: Stop, breaks: type[Exception] | None = None) -> None:
        super().__init__(Options(name, str(base / name), str(base / f"{name}.run")))
        self.name, self.turns, self.closed = name, 0, False
        self._stop, self._breaks = stop, breaks

    def operations(self) -> dict[str, Operation]:
        return {}

    def deadline(self) -> float | None:
        return 0.0

    def tick(self, now: float) -> None:
        self.turns += 1
        if self.turns == 3 and self._breaks:
            raise self._breaks
        if self.turns == 9:
            self._stop.asked = True

    def close(self) -> None:
        self.closed = True


class Refusing(Counting):
    """Cannot start."""

    def open(self, _runtime: Runtime) -> None:
        raise StartError("cannot start")


@pytest.fixture
def stop() -> Iterator[Stop]:
    made = Stop()
    yield made
    made.close()


def run(*services: Counting, stop: Stop) -> None:
    Loop(services, notify.Notifier(None), stop).run()


def test_each_of_them_has_its_turns(tmp_path: Path, stop: Stop) -> None:
    both = Counting("a", tmp_path, stop), Counting("b", tmp_path, stop)
    run(*both, stop=stop)
    assert [(each.turns, each.closed) for each in both] == [(9, True), (9, True)]


def test_a_defect_in_one_ends_all(tmp_path: Path, stop: Stop) -> None:
    """A service in an unknown state does not go on, nor do those that share its memory; the supervisor starts all."""
    both = Counting("a", tmp_path, stop), Counting("b", tmp_path, stop, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        run(*both, stop=stop)
    assert [each.closed for each in both] == [True, True]
    assert not list(tmp_path.rglob("*.sock"))
    run(Counting("a", tmp_path, stop), stop=stop)  # nothing of it is held any more


def test_what_cannot_start_lets_none_start(tmp_path: Path, stop: Stop) -> None:
    first = Counting("a", tmp_path, stop)
    with pytest.raises(StartError):
        run(first, Refusing("b", tmp_path, stop), stop=stop)
    assert (first.turns, first.closed) == (0, True)


def test_a_descriptor_can_be_watched_and_forgotten(tmp_path: Path, stop: Stop) -> None:
    service = Counting("a", tmp_path, stop)
    loop = Loop([service], notify.Notifier(None), stop)
    read, write = os.pipe()
    seen = []

    def call() -> None:
        seen.append(os.read(read, 1))
        loop.forget(read)

    try:
        loop.watch(read, call)
        os.write(write, b"12")
        loop.run()
        assert seen == [b"1"]
    finally:
        os.close(read)
        os.close(write)
