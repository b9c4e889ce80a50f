"""What a service says: by level, bounded, and never at the cost of the service."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Self

import pytest

from edge_agent.services import log as under_test
from edge_agent.services.log import DEBUG, ERROR, INFO, VARIABLE, WARNING, configure, log, wanted


class Pipe:
    """Standard error as a pipe, as long as the context lasts: pytest puts its own there before each test."""

    def __enter__(self) -> Self:
        self.read, write = os.pipe()
        os.set_blocking(self.read, False)
        self._kept = os.dup(2)
        os.dup2(write, 2)
        os.close(write)
        return self

    def lines(self) -> list[str]:
        try:
            return os.read(self.read, 1 << 20).decode().splitlines()
        except BlockingIOError:
            return []

    def stop_reading(self) -> None:
        os.close(self.read)
        self.read = -1

    def __exit__(self, *_: object) -> None:
        os.dup2(self._kept, 2)
        os.close(self._kept)
        if self.read >= 0:
            os.close(self.read)


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    yield
    configure("s", {})
    under_test._Output.lost = 0


@pytest.mark.parametrize(
    ("word", "levels"),
    [
        (None, "iwe"),
        ("", "iwe"),
        ("DEBUG", "diwe"),
        ("debug", "diwe"),
        ("INFO", "iwe"),
        ("WARNING", "we"),
        ("ERROR", "e"),
    ],
)
def test_the_level_decides(word: str | None, levels: str) -> None:
    with Pipe() as error:
        configure("s", {} if word is None else {VARIABLE: word})
        for level, text in ((DEBUG, "d"), (INFO, "i"), (WARNING, "w"), (ERROR, "e")):
            log("s", text, level)
            assert wanted(level) == (text in levels)
        told = {"d": "s: debug: d", "i": "s: i", "w": "s: warning: w", "e": "s: error: e"}
        assert error.lines() == [told[each] for each in levels]


def test_a_word_that_is_no_level_is_said() -> None:
    with Pipe() as error:
        configure("s", {VARIABLE: "loud"})
        why = "cannot read EDGE_AGENT_LOG_LEVEL='loud': not a level; fix: one of DEBUG, INFO, WARNING, ERROR"
        assert error.lines() == [f"s: warning: {why}"]
    assert wanted(INFO)
    assert not wanted(DEBUG)


def test_a_line_is_one_line_and_bounded() -> None:
    with Pipe() as error:
        log("s", "a\nb\r\nc\ud800")
        log("s", "x" * 100_000)
        first, second = error.lines()
    assert first == "s: a b c\\ud800"
    assert len(second) < 2048


def test_a_pipe_that_nobody_reads_stops_nothing_and_the_loss_is_said() -> None:
    with Pipe() as error:
        for number in range(2000):
            log("s", f"line {number} " + "x" * 100)
        before = error.lines()
        assert 0 < len(before) < 2000
        log("s", "again")
        log("s", "and again")
        lost = f"s: warning: {2000 - len(before)} lines were lost, nobody read them"
        assert error.lines() == [lost, "s: again", "s: and again"]


def test_a_reader_that_is_gone_is_no_error() -> None:
    with Pipe() as error:
        error.stop_reading()
        log("s", "into the void")
