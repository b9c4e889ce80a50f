"""Directories made for another user: by a root that believes nothing it finds in them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.host import directories
from edge_agent.host.directories import MOST_LEVELS, DirectoryError
from edge_agent.model import Service

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
NOBODY, OTHER = 65534, 65533


@pytest.fixture
def bases(tmp_path: Path) -> tuple[Path, Path]:
    """The agent's data and run directories."""
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    run.mkdir()
    return data, run


def make(bases: tuple[Path, Path], *paths: Path | str, uid: int | None = None, gid: int | None = None) -> None:
    service = Service("s", ("/bin/s",), uid=uid, gid=gid, directories=tuple(map(str, paths)))
    directories.make(service, str(bases[0]), str(bases[1]))


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_they_get_the_mode_of_their_place_whatever_the_umask_is(bases: tuple[Path, Path]) -> None:
    data, run = bases
    before = os.umask(0o077)
    try:
        make(bases, data / "services/s", run / "bundled/s")
    finally:
        os.umask(before)
    assert [mode(data / "services"), mode(data / "services/s")] == [0o755, 0o700]
    assert [mode(run / "bundled"), mode(run / "bundled/s")] == [0o755, 0o750]
    assert owner(data / "services/s") == (os.geteuid(), os.getegid())


def test_made_again_nothing_changes_but_the_mode_is_put_right(bases: tuple[Path, Path]) -> None:
    path = bases[0] / "s"
    make(bases, path)
    (path / "file").write_text("kept")
    path.chmod(0o777)
    make(bases, path)
    assert (mode(path), (path / "file").read_text()) == (0o700, "kept")


def test_a_run_directory_below_the_data_directory_has_its_own_mode(bases: tuple[Path, Path]) -> None:
    data, _ = bases
    (data / "run").mkdir()
    make((data, data / "run"), data / "run/s", data / "s")
    assert (mode(data / "run/s"), mode(data / "s")) == (0o750, 0o700)


@pytest.mark.parametrize(
    "path", ["/etc/s", "{data}", "{data}/", "{data}/../x", "{data}x/s", "{data}/a//b", "s", "{data}/\0"]
)
def test_nothing_is_made_elsewhere(bases: tuple[Path, Path], path: str) -> None:
    with pytest.raises(DirectoryError, match=r"^cannot make .*neither below .*; fix: "):
        make(bases, path.format(data=bases[0]))


@pytest.mark.parametrize("where", ["s", "s/inner"])
def test_a_link_in_its_place_or_on_the_way_is_refused(bases: tuple[Path, Path], tmp_path: Path, where: str) -> None:
    (tmp_path / "outside").mkdir(mode=0o755)
    (bases[0] / "s").symlink_to(tmp_path / "outside")
    with pytest.raises(DirectoryError, match=r"cannot make .*; fix: move away"):
        make(bases, bases[0] / where)
    assert mode(tmp_path / "outside") == 0o755
    assert not list((tmp_path / "outside").iterdir())


def test_a_file_in_its_place_is_said(bases: tuple[Path, Path]) -> None:
    (bases[0] / "s").write_text("")
    with pytest.raises(DirectoryError, match=r"cannot make .*/s: Not a directory; fix: move away"):
        make(bases, bases[0] / "s")


# -- another user


def filled(top: Path) -> list[Path]:
    """What an earlier user left: files, a directory, a link, a socket's place."""
    (top / "ab").mkdir(mode=0o700)
    (top / "ab/blob").write_text("x")
    (top / "key").touch(mode=0o600)
    (top / "link").symlink_to("/etc/passwd")
    os.mkfifo(top / "fifo")
    return [top / "ab", top / "ab/blob", top / "key", top / "link", top / "fifo"]


@ROOT
def test_a_new_one_belongs_to_the_user(bases: tuple[Path, Path]) -> None:
    make(bases, bases[0] / "services/s", uid=NOBODY, gid=OTHER)
    assert owner(bases[0] / "services/s") == (NOBODY, OTHER)
    assert owner(bases[0] / "services") == (0, 0)


@ROOT
@pytest.mark.parametrize(("old", "new"), [(None, NOBODY), (NOBODY, None), (NOBODY, OTHER)])
def test_another_user_gets_everything_and_links_are_not_followed(
    bases: tuple[Path, Path], old: int | None, new: int | None
) -> None:
    top, passwd = bases[0] / "s", owner(Path("/etc/passwd"))
    make(bases, top, uid=old, gid=old)
    everything = filled(top)
    for path in everything:
        os.chown(path, old or 0, old or 0, follow_symlinks=False)
    make(bases, top, uid=new, gid=new)
    assert {owner(path) for path in [top, *everything]} == {(new or 0, new or 0)}
    assert owner(Path("/etc/passwd")) == passwd
    assert (mode(top / "key"), mode(top)) == (0o600, 0o700)


@ROOT
def test_with_the_same_user_nothing_is_looked_at(bases: tuple[Path, Path]) -> None:
    make(bases, bases[0] / "s", uid=NOBODY, gid=NOBODY)
    (bases[0] / "s/roots").touch()
    make(bases, bases[0] / "s", uid=NOBODY, gid=NOBODY)
    assert owner(bases[0] / "s/roots") == (0, 0)


@ROOT
def test_what_a_third_user_owns_and_what_has_a_second_name_is_left_alone(bases: tuple[Path, Path]) -> None:
    top, outside = bases[0] / "s", bases[0] / "precious"
    make(bases, top, uid=NOBODY, gid=NOBODY)
    (top / "third").touch()
    outside.touch()
    os.chown(outside, NOBODY, NOBODY)
    (top / "second").hardlink_to(outside)
    make(bases, top, uid=OTHER, gid=OTHER)
    assert owner(top) == (OTHER, OTHER)
    assert owner(top / "third") == (0, 0)
    assert owner(outside) == (NOBODY, NOBODY)


@ROOT
def test_an_interrupted_hand_over_goes_on(bases: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    top = bases[0] / "s"
    make(bases, top)
    everything = filled(top)
    real: Callable[..., None] = os.chown
    calls = iter([True, True, False])

    def chown(*args: int) -> None:
        if not next(calls):
            raise OSError(5, "Input/output error")
        real(*args)

    monkeypatch.setattr(os, "chown", chown)
    with pytest.raises(DirectoryError, match="Input/output error; fix: "):
        make(bases, top, uid=NOBODY, gid=NOBODY)
    monkeypatch.undo()
    assert owner(top) == (0, 0)
    make(bases, top, uid=NOBODY, gid=NOBODY)
    assert {owner(path) for path in [top, *everything]} == {(NOBODY, NOBODY)}


@ROOT
def test_a_pit_without_end_is_an_error_not_a_crash(bases: tuple[Path, Path]) -> None:
    top = bases[0] / "s"
    make(bases, top)
    (top / "/".join("d" * (MOST_LEVELS + 1))).mkdir(parents=True)
    with pytest.raises(DirectoryError, match="nested more than"):
        make(bases, top, uid=NOBODY, gid=NOBODY)


@ROOT
def test_without_privilege_it_says_so() -> None:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are for root alone
        data = Path(directory)
        os.chown(data, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            with pytest.raises(DirectoryError, match="Operation not permitted; fix: run the agent as root"):
                make((data, data), data / "s", uid=OTHER, gid=OTHER)
            data.chmod(0o500)
            with pytest.raises(DirectoryError, match="Permission denied; fix: run the agent as root"):
                make((data, data), data / "t", uid=NOBODY, gid=NOBODY)
        finally:
            os.seteuid(0)


# -- the end


def test_they_go_with_everything_and_only_below_the_run_directory(bases: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = bases
    make(bases, data / "services/s", run / "bundled/s", run / "bundled/t")
    filled(run / "bundled/s")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").touch()
    (run / "bundled/s/out").symlink_to(tmp_path / "outside")
    gone = [str(data / "services/s"), str(run / "bundled/s")]
    assert directories.remove(gone, str(run)) == []
    assert directories.remove(gone, str(run)) == [], "twice is fine"
    assert (data / "services/s").exists()
    assert (tmp_path / "outside/file").exists()
    assert [path.name for path in run.rglob("*")] == ["bundled", "t"]
    assert directories.remove([str(run / "bundled/t")], str(run)) == []
    assert list(run.iterdir()) == []


def test_what_cannot_go_is_said(bases: tuple[Path, Path]) -> None:
    pit = bases[1] / "s" / "/".join("d" * (MOST_LEVELS + 1))
    pit.mkdir(parents=True)
    said = directories.remove([str(bases[1] / "s")], str(bases[1]))
    assert len(said) == 1
    assert "cannot remove" in said[0]
    assert "nested more than" in said[0]
