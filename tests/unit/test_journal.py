"""Events: notable ones survive, a torn tail ends a segment and nothing else, the rest is never on disk."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.host.journal import KEPT, SEGMENT, Journal
from edge_agent.host.repeats import GAP, LONGEST_GAP, RUNS, Repeats


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
        journal.add("switched", "", f"{number} " + "x" * 100, notable=True)
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
    (tmp_path / "events.bad").mkdir()  # rename(2) of a file to a directory: EISDIR
    journal.add("oom", "web", "killed", notable=True)
    assert [entry.kind for entry in journal.since(0)] == ["oom", "journal"]
    assert len(set(closed)) == len(closed)


@pytest.mark.parametrize("cut", [1, 8, 20])
def test_what_follows_a_torn_record_is_found_at_the_next_boot(tmp_path: Path, cut: int) -> None:
    journal = Journal(str(tmp_path))
    for text in ("first", "torn"):
        journal.add("switched", "", text, notable=True)
    path = tmp_path / "events"
    path.write_bytes(path.read_bytes()[:-cut])
    after = Journal(str(tmp_path))
    after.add("switched", "", "after the power cut", notable=True)
    assert texts(Journal(str(tmp_path))) == ["first", "after the power cut"]


def test_a_tail_of_zeros_is_cut_off_too(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    journal.add("switched", "", "first", notable=True)
    with (tmp_path / "events").open("ab") as file:
        file.write(bytes(100))
    journal.add("switched", "", "second", notable=True)
    assert texts(Journal(str(tmp_path))) == ["first", "second"]


def test_a_file_of_something_else_is_set_aside_not_cut(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("somebody's notes")
    Journal(str(tmp_path)).add("switched", "", "first", notable=True)
    assert texts(Journal(str(tmp_path))) == ["first"]
    assert (tmp_path / "events.bad").read_text() == "somebody's notes"


def test_a_file_that_was_removed_meanwhile_is_begun_anew(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    journal.add("switched", "", "first", notable=True)
    (tmp_path / "events").unlink()
    journal.add("switched", "", "second", notable=True)
    assert texts(Journal(str(tmp_path))) == ["second"]


def test_the_name_of_a_new_segment_is_on_the_disk_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    journal = Journal(str(tmp_path))
    for _ in range(3):
        journal.add("switched", "", "x" * 100, notable=True)
    assert synced == [str(tmp_path)]


# -- the same again --------------------------------------------------------------------------------------------------


def test_the_same_again_is_written_once_and_then_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    journal = Journal(str(tmp_path))
    for _ in range(5):
        journal.add("exit", "web", "exited with code 3", notable=True)
        now += 60
    journal.add("exit", "web", "exited with code 4", notable=True)
    journal.add("exit", "db", "exited with code 3", notable=True)
    journal.add("quarantined", "web", "it gave up", notable=True)
    now += GAP
    journal.add("exit", "web", "exited with code 3", notable=True)
    assert texts(journal).count("exited with code 3") == 7, "in memory is every one"
    assert texts(Journal(str(tmp_path))) == [
        "exited with code 3",
        "exited with code 4",
        "exited with code 3",
        "it gave up",
        "exited with code 3 (and 4 more like it before)",
    ]


def test_measurements_make_no_difference_and_codes_do() -> None:
    repeats = Repeats()
    repeats.written("unhealthy", "web", "no answer in 1.03 s", 0)
    repeats.written("exit", "web", "exited with code 1", 0)
    assert repeats.due("unhealthy", "web", "no answer in 2.4 s", 1) == -1
    assert repeats.due("exit", "web", "exited with code 2", 1) == 0


def test_what_the_disk_refused_is_not_taken_for_written(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    journal = Journal(str(tmp_path))
    journal.add("oom", "web", "killed", notable=True)
    (tmp_path / "events").rmdir()
    journal.add("oom", "web", "killed", notable=True)
    assert texts(Journal(str(tmp_path))) == ["killed"]


def write(times: list[float], repeats: Repeats | None = None, text: str = "exited with code 1") -> list[float]:
    """When the event is written, of the times at which it comes."""
    repeats = repeats or Repeats()
    written = []
    left_out = 0
    for now in times:
        more = repeats.due("exit", "web", text, now)
        assert more in (-1, left_out), "every one is counted"
        left_out = 0 if more >= 0 else left_out + 1
        if more >= 0:
            repeats.written("exit", "web", text, now)
            written.append(now)
    return written


def test_a_crash_a_minute_is_three_writes_in_the_first_hour_and_one_an_hour_then() -> None:
    written = write([60.0 * minute for minute in range(24 * 60)])
    assert written[:4] == [0, GAP, 3 * GAP, 7 * GAP]
    assert sum(moment < 3600 for moment in written) == 3
    assert sum(moment >= 22 * 3600 for moment in written) == 2


def test_after_a_quiet_time_the_first_is_news_again() -> None:
    written = write([0, 1, GAP, 3 * GAP, 10 * GAP, 10 * GAP + 1, 11 * GAP])
    assert written == [0, GAP, 3 * GAP, 10 * GAP, 11 * GAP]


@given(st.lists(st.floats(0, 5000), min_size=1, max_size=200))
def test_writes_are_never_closer_than_the_gap_and_never_further_than_the_longest(pauses: list[float]) -> None:
    now, times = 0.0, []
    for pause in pauses:
        now += pause
        times.append(now)
    written = write(times)
    assert written[0] == times[0]
    assert all(later - earlier >= GAP for earlier, later in pairwise(written))
    for moment in times:
        last = max(one for one in written if one <= moment)
        assert moment - last < LONGEST_GAP


def test_the_number_of_known_events_is_bounded() -> None:
    repeats = Repeats()
    for number in range(10 * RUNS):
        repeats.written("exit", f"s{number}", "x", 0.0)
    assert len(repeats._runs) == RUNS
    assert repeats.due("exit", f"s{10 * RUNS - 1}", "x", 1) == -1
