"""Who belongs to a service, over a /proc made of files: every way to leave, and every way to be mistaken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_agent.host.tree import KILL_ROUNDS, TreeContainment
from edge_agent.model import RESOURCES, Limits, Service

MARK = "EDGE_AGENT_UNIT=here:"


class Proc:
    """/proc with what is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def add(
        self,
        pid: int,
        *,
        parent: int = 1,
        session: int = 0,
        started: int = 100,
        environ: str | None = "",
        state: str = "S",
    ) -> None:
        folder = self.path / str(pid)
        folder.mkdir(exist_ok=True)
        rest = " ".join(["0"] * 15)
        stat = f"{pid} (a) b) {state} {parent} {session or pid} {session or pid} {rest} {started} 0 0"
        (folder / "stat").write_text(stat, encoding="ascii")
        (folder / "environ").unlink(missing_ok=True)
        if environ is not None:
            (folder / "environ").write_text(f"A=1\0{environ}\0B=2\0" if environ else "A=1\0", encoding="ascii")

    def drop(self, pid: int) -> None:
        for file in (self.path / str(pid)).iterdir():
            file.unlink()
        (self.path / str(pid)).rmdir()


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    made = Proc(tmp_path / "proc")
    made.add(1, parent=0, session=1)
    (made.path / "uptime").write_text("1 1", encoding="ascii")
    return made


@pytest.fixture
def tree(proc: Proc) -> TreeContainment:
    return TreeContainment("here", "sampling", proc=str(proc.path))


def test_by_marker(proc: Proc, tree: TreeContainment) -> None:
    proc.add(10, environ=MARK + "web")
    proc.add(11, environ="EDGE_AGENT_UNIT=elsewhere:web")
    proc.add(12, environ="EDGE_AGENT_UNIT=here:website")
    proc.add(13, environ="XEDGE_AGENT_UNIT=here:web")
    assert tree.members("web") == [10]
    assert tree.names() == ["web", "website"]


def test_descendants_that_cleared_their_environment(proc: Proc, tree: TreeContainment) -> None:
    proc.add(10, environ=MARK + "web")
    proc.add(30, parent=10)
    proc.add(20, parent=30, session=20)  # a lower number than its parent, and a session of its own
    proc.add(40, parent=1, session=20)  # orphaned, but in that session
    assert tree.members("web") == [10, 20, 30, 40]
    assert tree.owns("web", 20)


def test_found_once_is_remembered_by_identity(proc: Proc, tree: TreeContainment) -> None:
    """Its parent and its session's leader go; it stays, and so do its later children."""
    proc.add(10, environ=MARK + "web")
    proc.add(20, parent=10)
    assert tree.members("web") == [10, 20]
    proc.drop(10)
    proc.add(20, parent=1)
    proc.add(21, parent=20)
    assert tree.members("web") == [20, 21]
    proc.add(20, parent=1, started=999)  # another process with its number
    proc.drop(21)
    assert tree.members("web") == []


def test_a_tracked_process_counts_without_a_marker(proc: Proc, tree: TreeContainment) -> None:
    """nginx and postgres write their title over their environment."""
    proc.add(10, environ="")
    proc.add(11, parent=1, session=10)
    assert tree.members("web") == []
    tree.track("web", 10, 99)  # not that one
    assert tree.members("web") == []
    tree.track("web", 10, 100)
    assert tree.members("web") == [10, 11]


def test_a_recycled_session_number_is_a_strangers(proc: Proc, tree: TreeContainment) -> None:
    proc.add(10, environ=MARK + "web")
    proc.add(11, parent=1, session=10)
    assert tree.members("web") == [10, 11]
    proc.drop(10)
    assert tree.members("web") == [11]
    proc.drop(11)
    assert tree.members("web") == []
    proc.add(10, started=5000)
    proc.add(12, parent=1, session=10, started=5001)
    assert TreeContainment("here", "none", proc=str(proc.path)).members("web") == []
    tree.track("other", 99999, 1)
    assert tree.names() == []


def test_a_held_childs_session_is_the_agents_and_pulls_nobody_in(proc: Proc, tree: TreeContainment) -> None:
    own = os.getpid()
    proc.add(own, session=500)
    proc.add(500)  # the shell the agent was started from
    proc.add(501, parent=500, session=500)
    proc.add(10, parent=own, session=500, environ="")  # forked, setsid comes next
    tree.prepare(Service("web", ("/bin/true",)))
    tree.track("web", 10, 100)
    assert tree.members("web") == [10]
    proc.add(10, parent=own, session=10, environ=MARK + "web")
    assert tree.members("web") == [10]


def test_the_agent_is_never_a_member(proc: Proc, tree: TreeContainment) -> None:
    proc.add(os.getpid(), environ=MARK + "web")
    assert tree.members("web") == []
    assert not tree.owns("web", os.getpid())


def test_zombies_are_not_alive_but_their_children_are_known(proc: Proc, tree: TreeContainment) -> None:
    proc.add(10, environ=MARK + "web")
    assert tree.populated("web")
    proc.add(10, environ=None, state="Z")
    proc.add(11, parent=1, session=10)
    assert tree.members("web") == [11]
    proc.drop(11)
    assert not tree.populated("web")


def test_what_a_not_yet_executed_child_says_is_not_its_last_word(proc: Proc, tree: TreeContainment) -> None:
    proc.add(os.getpid())
    proc.add(10, parent=os.getpid(), environ="")
    assert tree.members("web") == []
    proc.add(10, parent=os.getpid(), environ=MARK + "web")
    fresh = TreeContainment("here", "none", proc=str(proc.path))
    assert fresh.members("web") == [10]
    tree.track("web", 10, 100)
    assert tree.members("web") == [10]


def test_empty_is_known_without_another_scan_until_someone_may_come(
    proc: Proc, tree: TreeContainment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        tree.prepare(Service(name, ("/bin/true",)))
    proc.add(10, environ=MARK + "one")
    proc.add(20, environ=MARK + "two")
    tree.track("one", 10, 100)
    tree.track("two", 20, 100)
    assert tree.populated("one")
    proc.drop(10)
    proc.drop(20)
    scans = []
    listdir = os.listdir

    def counted(path: str) -> list[str]:
        scans.append(path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", counted)
    assert not tree.populated("one")
    assert not tree.populated("two")
    assert not tree.populated("one")
    assert len(scans) == 1
    proc.add(11, environ=MARK + "one", started=300)
    tree.track("one", 11, 300)
    assert tree.populated("one")


def test_vanishing_while_looking_hides_nobody(
    proc: Proc, tree: TreeContainment, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc.add(10, environ=MARK + "web")
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: ["7", *listdir(path), "8888"])
    assert tree.members("web") == [10]


def test_an_unreadable_environment_is_nobodys(proc: Proc, tree: TreeContainment) -> None:
    proc.add(10, environ=None)
    proc.add(11, environ=MARK + "web")
    assert tree.members("web") == [11]


def test_kill_ends_with_a_process_that_does_not_die(
    proc: Proc, tree: TreeContainment, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc.add(10, environ=MARK + "web")
    killed: list[int] = []
    monkeypatch.setattr(TreeContainment, "_kill_one", lambda _self, process, **_: killed.append(process.pid))
    tree.kill("web")
    assert killed == [10], "in an uninterruptible wait: signalled once, and met again by the next call"


def test_kill_follows_a_fork_race_but_not_for_ever(
    proc: Proc, tree: TreeContainment, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc.add(10, environ=MARK + "web")
    rounds: list[bool] = []

    def respawn(_self: TreeContainment, process: object, *, whole_group: bool) -> None:
        rounds.append(whole_group)
        pid = process.pid  # type: ignore[attr-defined]  # a Process
        proc.drop(pid)
        proc.add(pid + 1, environ=MARK + "web")

    monkeypatch.setattr(TreeContainment, "_kill_one", respawn)
    tree.kill("web")
    assert rounds == [False] + [True] * (KILL_ROUNDS - 1)


@pytest.mark.parametrize(("mode", "kind"), [("sampling", "sampled"), ("none", "not enforced")])
def test_reports(mode: str, kind: str) -> None:
    limits = Limits(memory_limit=1, swap_limit=1, cpu_request=1, pids_limit=1, io_weight=1)
    report = TreeContainment("here", mode, "by-setting").resize(Service("web", ("/bin/true",), limits=limits))
    assert tuple(report) == RESOURCES
    assert report["memory"] == report["pids"] == (kind, "by-setting")
    for resource in ("swap", "cpu", "io", "oom_group"):
        assert report[resource] == ("not enforced", "by-setting")
