"""What a node keeps on disk, and the file of members."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.peers import evidence
from edge_agent.peers.heads import Log
from edge_agent.services.errors import StartError
from edge_agent.services.membersfile import LOOK_EVERY, MembersFile
from edge_agent.services.nodefiles import Files
from tests.fakes.logs import FakeLog

A, B = "a" * 40, "b" * 40


def test_heads_come_back_and_what_cannot_be_believed_is_set_aside(tmp_path: Path) -> None:
    log, other = FakeLog(entries=3), FakeLog("other", seed=2, entries=3)
    files = Files(str(tmp_path))
    files.save_head(log.verifier.name, log.note(2))
    files.save_head(log.verifier.name, log.note(3))
    files.save_head(other.verifier.name, log.note(3))  # as if somebody had changed the file
    mine, theirs = Log(log.verifier), Log(other.verifier)
    Files(str(tmp_path)).restore_heads([mine, theirs, Log(FakeLog("third").verifier)])
    assert (mine.size, theirs.head) == (3, None)
    names = sorted(path.suffix for path in (tmp_path / "heads").iterdir())
    assert names == ["", ".bad"]


def test_a_write_that_was_cut_off_changes_nothing(tmp_path: Path) -> None:
    log = FakeLog(entries=3)
    files = Files(str(tmp_path))
    files.save_head(log.verifier.name, log.note(3))
    (kept,) = (tmp_path / "heads").iterdir()
    kept.with_name(kept.name + ".new").write_bytes(log.note(2)[:20])
    mine = Log(log.verifier)
    Files(str(tmp_path)).restore_heads([mine])
    assert mine.size == 3


def test_a_full_disk_is_said_and_no_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = FakeLog(entries=3)
    files = Files(str(tmp_path))
    (tmp_path / "heads").rmdir()
    files.save_head(log.verifier.name, log.note(3))
    assert "cannot write" in capfd.readouterr().err


def test_evidence_comes_back_and_takes_the_place_of_what_it_replaces(tmp_path: Path) -> None:
    log = FakeLog(entries=4)
    keys = {log.verifier.name: log.verifier}
    fork = evidence.Evidence("log.example", "fork", log.note(4), log.fork(3).grow(1, b"x").note())
    report = evidence.Evidence("log.example", "rollback", log.note(4), log.note(3))
    files = Files(str(tmp_path))
    files.keep(report, "")
    files.keep(fork, report.name)
    (tmp_path / "evidence" / "garbage").write_bytes(b"\xc1")
    assert list(Files(str(tmp_path)).evidence(keys)) == [fork]
    assert list(Files(str(tmp_path)).evidence({})) == []
    assert (tmp_path / "evidence" / "garbage.bad").exists()


def test_members_are_those_of_the_profile_and_of_the_file_as_it_is_now(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "members"
    path.write_text(f"# light nodes\n\n{B} the kitchen's\n")
    members = MembersFile(str(path), [A], lambda: now[0])
    assert list(members.keys) == [A, B]
    path.write_text("")
    assert B in members  # looked at when somebody knocks who is not known, or asks, and not at once
    now[0] += LOOK_EVERY
    members.look()
    assert B not in members
    path.write_text(f"{B}\n")
    assert B not in members
    now[0] += LOOK_EVERY
    assert B in members


def test_a_broken_file_changes_nothing_and_at_the_start_it_is_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    path = tmp_path / "members"
    with pytest.raises(StartError, match="cannot read members"):
        MembersFile(str(path), [], lambda: now[0])
    path.write_text(f"{B}\n")
    members = MembersFile(str(path), [], lambda: now[0])
    path.write_text(f"{A}\nno key\n")
    now[0] += LOOK_EVERY
    members.look()
    assert list(members.keys) == [B]
    assert "line 2 begins with no key" in capfd.readouterr().err
