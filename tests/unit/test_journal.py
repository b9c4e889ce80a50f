"""Events: notable ones survive, a torn tail ends a segment and nothing else, the rest is never on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_agent.host.journal import KEPT, SEGMENT, Journal


def texts(journal: Journal, cursor: int = 0, service: str = "") -> list[str]:
    return [entry.text for entry in journal.since(cursor, service, most=KEPT)]


def test_notable_events_survive_the_rest_does_not(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    journal.add("ready", "web", "quiet", notable=False)
    journal.add("oom", "web", "killed", notable=True)
    assert texts(journal) == ["quiet", "killed"]
    again = Journal(str(tmp_path))
    assert texts(again) == ["killed"]
    assert again.add("x", "", "next", notable=False).seq == again.last


def test_nothing_is_written_for_what_is_not_notable(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    for _ in range(10):
        journal.add("ready", "web", "quiet", notable=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_torn_tail_loses_the_last_event_only(tmp_path: Path, cut: int) -> None:
    journal = Journal(str(tmp_path))
    journal.add("a", "", "first", notable=True)
    journal.add("b", "", "second", notable=True)
    path = tmp_path / "events"
    path.write_bytes(path.read_bytes()[:-cut])
    assert texts(Journal(str(tmp_path))) == ["first"]


def test_the_disk_is_bounded_and_the_newest_are_kept(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    for number in range(2000):
        journal.add("exit", "web", f"{number} " + "x" * 100, notable=True)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * SEGMENT
    kept = texts(Journal(str(tmp_path)))
    assert kept[-1].startswith("1999 ")
    assert len(kept) == KEPT


def test_since_gives_what_came_after_by_service(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    for number in range(5):
        journal.add("x", "web" if number % 2 else "db", str(number), notable=False)
    assert texts(journal, cursor=2) == ["2", "3", "4"]
    assert texts(journal, service="web") == ["1", "3"]


def test_a_disk_that_refuses_is_said_once_and_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    journal = Journal(str(tmp_path))
    for _ in range(3):
        journal.add("oom", "web", "killed", notable=True)
    assert sum("cannot write events" in text for text in texts(journal)) == 1
    assert texts(journal).count("killed") == 3


def test_a_full_segment_that_cannot_be_moved_is_an_event_and_closes_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(tmp_path))
    (tmp_path / "events").write_bytes(bytes(SEGMENT))
    closed: list[int] = []
    close = os.close

    def note(fd: int) -> None:
        closed.append(fd)
        close(fd)

    monkeypatch.setattr(os, "close", note)
    (tmp_path / "events.1").mkdir()  # rename(2) of a file to a directory: EISDIR
    journal.add("oom", "web", "killed", notable=True)
    assert [entry.kind for entry in journal.since(0)] == ["oom", "journal"]
    assert len(set(closed)) == len(closed)
