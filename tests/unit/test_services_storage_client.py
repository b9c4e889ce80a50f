"""The client of storage waits while something goes on, and not for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_agent.services.client import MOST_PAUSE, PAUSE, ServiceError, Storage


class Scripted(Storage):
    """Answers by a function of how often it was asked."""

    def __init__(self, answer: Callable[[int], dict[str, Any] | ServiceError]) -> None:
        self.answer, self.asked = answer, 0

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        self.asked += 1
        answer = self.answer(self.asked)
        if isinstance(answer, ServiceError):
            raise answer
        return answer


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time passes by sleeping, and three seconds with each look at the clock: a held request takes as long."""
    pauses: list[float] = []
    looks = iter(range(100_000))
    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr("time.monotonic", lambda: sum(pauses) + 3.0 * next(looks))
    return pauses


def test_it_goes_on_as_long_as_a_transfer_does(slept: list[float]) -> None:
    storage = Scripted(lambda asked: ServiceError("pending", f"{asked} of 100 bytes", "") if asked < 100 else {})
    storage.pin(b"")
    assert storage.asked == 100
    assert slept == []


def test_a_transfer_that_stands_still_is_given_up_after_its_patience(slept: list[float]) -> None:
    storage = Scripted(lambda _asked: ServiceError("pending", "5 of 100 bytes", ""))
    with pytest.raises(ServiceError) as caught:
        storage.get(bytes(32))
    assert caught.value.code == "pending"
    assert 20 <= storage.asked <= 22
    assert slept == []


def test_over_its_rate_it_waits_longer_each_time(slept: list[float]) -> None:
    storage = Scripted(lambda asked: ServiceError("busy", "over", "") if asked < 10 else {"size": 1})
    storage.pin(b"")
    assert slept[:3] == [PAUSE, 2 * PAUSE, 4 * PAUSE]
    assert max(slept) == MOST_PAUSE


@pytest.mark.parametrize("code", ["not-found", "unreachable", "corrupt", "wrong-blob"])
def test_what_will_not_change_is_not_asked_for_again(slept: list[float], code: str) -> None:
    storage = Scripted(lambda _asked: ServiceError(code, "", ""))
    with pytest.raises(ServiceError):
        storage.pin(b"")
    assert storage.asked == 1
    assert slept == []
