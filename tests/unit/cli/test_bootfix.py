"""check --fix on files: what is written, what is kept, and when nothing is."""

from __future__ import annotations

import json
import os
import pty
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_agent.cli import bootfix, compiling, exits
from edge_agent.demand import Facts

from .fakes import Run

PI = Facts(memory=1 << 30, cpus=4, cgroup="unified", memory_disabled_on_cmdline=True, systemd=True)
STOCK = b"console=tty1 root=PARTUUID=1-02 rootwait\n"
FIXED = b"console=tty1 root=PARTUUID=1-02 rootwait cgroup_enable=memory psi=1\n"


class Person:
    """Agrees or not, and remembers what was shown."""

    def __init__(self, why_not: str = "") -> None:
        self.why_not = why_not
        self.shown: list[str] = []

    def __call__(self, lines: Sequence[str]) -> str:
        self.shown += lines
        return self.why_not


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "boot/firmware/cmdline.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(STOCK)
    return path


def repair(*places: Path, person: Person | None = None, facts: Facts = PI) -> bootfix.Outcome:
    paths = [str(place) for place in places]
    return bootfix.repair(facts, None, person or Person(), places=paths, grub="/nonexistent/grub")


def test_the_first_place_that_is_there_is_changed_and_kept_as_it_was(file: Path) -> None:
    file.chmod(0o640)
    person = Person()
    outcome = repair(file.parent / "none", file, person=person)
    assert (outcome.code, outcome.changed) == (exits.OK, True)
    assert file.read_bytes() == FIXED
    assert file.stat().st_mode & 0o777 == 0o640
    assert Path(outcome.backup).read_bytes() == STOCK
    assert person.shown == [str(file), f"- {STOCK[:-1].decode()}", f"+ {FIXED[:-1].decode()}"]
    assert "a reboot is needed" in outcome.lines[-1]
    assert sorted(entry.name for entry in file.parent.iterdir()) == ["cmdline.txt", "cmdline.txt.bak"]

    again = repair(file)
    assert (again.code, again.changed) == (exits.OK, False)
    assert "says it already" in again.lines[0]
    assert "a reboot is needed" in again.lines[-1]


def test_an_older_backup_is_not_lost(file: Path) -> None:
    backup = Path(str(file) + ".bak")
    backup.write_bytes(b"somebody's own")
    assert repair(file).backup == str(backup) + "1"
    file.write_bytes(STOCK)
    assert repair(file).backup == str(backup) + "1", "the same content need not be kept twice"
    file.write_bytes(b"another\n")
    assert repair(file).backup == str(backup) + "2"
    assert backup.read_bytes() == b"somebody's own"


def test_without_leave_nothing_is_changed(file: Path) -> None:
    outcome = repair(file, person=Person("you did not say yes"))
    assert (outcome.code, outcome.changed) == (exits.FAILED, False)
    assert outcome.lines == (f"{file} is not changed: you did not say yes",)
    assert [entry.name for entry in file.parent.iterdir()] == ["cmdline.txt"]
    assert file.read_bytes() == STOCK


def test_a_file_that_changes_while_the_person_thinks_is_left_alone(file: Path) -> None:
    def thinks(_lines: Sequence[str]) -> str:
        file.write_bytes(b"of an upgrade\n")
        return ""

    outcome = bootfix.repair(PI, str(file), thinks)
    assert outcome.code == exits.FAILED
    assert "changed meanwhile" in outcome.lines[0]
    assert file.read_bytes() == b"of an upgrade\n"


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "boot/cmdline.txt"
    link.symlink_to("firmware/cmdline.txt")
    assert repair(link).file == str(file)
    assert link.is_symlink()
    assert file.read_bytes() == FIXED


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "it is empty"), (b"one\ntwo\n", "not one line"), (b"x" * 5000, "more than 4096"), (b"a\0\n", "NUL")],
)
def test_what_is_no_command_line_is_refused_and_kept(file: Path, content: bytes, why: str) -> None:
    file.write_bytes(content)
    outcome = repair(file)
    assert outcome.code == exits.FAILED
    assert why in outcome.lines[0]
    assert "fix:" in outcome.lines[0]
    assert file.read_bytes() == content


def test_what_is_shown_cannot_move_the_cursor(file: Path) -> None:
    file.write_bytes(b"a=\x1b[2J\xff b\n")
    person = Person()
    assert repair(file, person=person).changed
    assert "\x1b" not in "".join(person.shown)
    assert file.read_bytes() == b"a=\x1b[2J\xff b cgroup_enable=memory psi=1\n"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "."):
        outcome = bootfix.repair(PI, str(tmp_path / name), Person())
        assert outcome.code == exits.FAILED
        assert "fix: name the file with --cmdline" in outcome.lines[0]
    missing = bootfix.repair(PI, str(tmp_path / "missing"), Person())
    assert "No such file" in missing.lines[0]


def test_a_full_or_read_only_disk_leaves_the_old_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> None:
        def fsync(_fd: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fsync)

    for number, fix in ((28, "make room in"), (30, "mount -o remount,rw"), (1, "run it as root")):
        refuse(number)
        outcome = repair(file)
        assert fix in outcome.lines[0]
        assert outcome.code == (exits.PERMISSION if number == 1 else exits.FAILED)
        assert file.read_bytes() == STOCK
        assert [entry.name for entry in file.parent.iterdir()] == ["cmdline.txt"]


def test_a_machine_that_needs_nothing_is_left_alone(file: Path) -> None:
    outcome = repair(file, facts=PI._replace(memory_disabled_on_cmdline=False, psi=True))
    assert (outcome.code, outcome.changed) == (exits.OK, False)
    assert file.read_bytes() == STOCK


def test_with_grub_it_is_told_what_to_write(tmp_path: Path) -> None:
    grub = tmp_path / "grub"
    grub.write_text('GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="cgroup_disable=memory"\n')
    outcome = bootfix.repair(PI, None, Person(), places=(), grub=str(grub))
    assert outcome.code == exits.FAILED
    assert outcome.lines[1:] == (
        '- GRUB_CMDLINE_LINUX="cgroup_disable=memory"',
        '+ GRUB_CMDLINE_LINUX="psi=1"',
        "then `update-grub && reboot`",
    )
    assert "psi" not in grub.read_text()
    grub.write_text('GRUB_CMDLINE_LINUX="psi=1"\n')
    outcome = bootfix.repair(PI, None, Person(), places=(), grub=str(grub))
    assert "is not what takes the limits away" in outcome.lines[0]


def test_without_a_known_boot_loader_it_is_told_too() -> None:
    outcome = repair()
    assert outcome.code == exits.FAILED
    assert "take cgroup_disable=memory out" in outcome.lines[0]
    assert "psi=1" in outcome.lines[0]


def test_the_command_asks_and_without_a_terminal_does_nothing(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "look", lambda _context, _agent: PI)
    result = run("check", "--fix", "--cmdline", str(file))
    assert result.code == exits.FAILED
    assert f"+ {FIXED[:-1].decode()}" in result.out
    assert "no terminal to ask; fix: give --yes" in result.out
    assert file.read_bytes() == STOCK

    shown = run("check", "--fix", "--yes", "--json", "--cmdline", str(file))
    assert shown.code == exits.OK
    answer = json.loads(shown.out)
    assert answer["fix"] == {
        "file": str(file),
        "added": ["cgroup_enable=memory", "psi=1"],
        "removed": [],
        "changed": True,
        "backup": f"{file}.bak",
    }
    assert not answer["complete"]
    assert file.read_bytes() == FIXED
    assert "a reboot is needed" in shown.err


@pytest.mark.parametrize(("said", "changed"), [("y\n", True), ("YES\n", True), ("\n", False), ("no\n", False)])
def test_a_person_is_asked(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch, said: str, *, changed: bool) -> None:
    monkeypatch.setattr(compiling, "look", lambda _context, _agent: PI)
    person, terminal = pty.openpty()
    with os.fdopen(terminal, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        os.write(person, said.encode())
        result = run("check", "--fix", "--cmdline", str(file))
    os.close(person)
    assert "change it? [y/N]" in result.out
    assert result.code == (exits.OK if changed else exits.FAILED)
    assert file.read_bytes() == (FIXED if changed else STOCK)


def test_options_of_the_fix_without_it_are_a_mistake(run: Run) -> None:
    result = run("check", "--yes")
    assert result.code == exits.USAGE
    assert "belong to --fix" in result.err
