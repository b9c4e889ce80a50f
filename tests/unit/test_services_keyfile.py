"""A secret key is made once, found again, and refused when anyone else could have it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edge_agent.services import directory, keyfile
from edge_agent.services.errors import StartError
from edge_agent.services.keyfile import Secret


def load(path: Path, text: str = "s" * 8) -> Secret:
    return keyfile.load_or_make(str(path), "kind", 8, lambda: text, 1_700_000_000.9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / "test.key"


def test_it_is_made_private_and_found_again(path: Path) -> None:
    before = os.umask(0)  # the worst one
    try:
        made = load(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"kind ssssssss 001700000000\n"
    assert load(path, "t" * 8) == made == Secret("ssssssss", 1_700_000_000)
    assert [entry.name for entry in path.parent.iterdir()] == ["test.key"]


def test_what_a_power_cut_left_is_overwritten(path: Path) -> None:
    path.with_name("test.key.new").write_bytes(b"torn")
    assert load(path).text == "ssssssss"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_key_that_others_can_access_is_refused_and_left_alone(path: Path, mode: int) -> None:
    load(path)
    path.chmod(mode)
    with pytest.raises(StartError, match=r"others have access.*fix: chmod 600"):
        load(path)
    assert path.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"kind ssssssss 001700000000",
        b"kind ssssssss 001700000000\n\n",
        b"kind sssssss  001700000000\n",
        b"kinD ssssssss 001700000000\n",
        b"kind ssss ssss001700000000\n",
        b"kind ssssssss 00170000000x\n",
        b"\xff" * 27,
        b"x" * 9000,
    ],
)
def test_a_key_of_another_size_or_form_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(StartError, match="cannot read the key"):
        load(path)
    assert path.read_bytes() == content


def test_a_symbolic_link_a_directory_and_a_fifo_are_refused(path: Path) -> None:
    path.symlink_to("/etc/hostname")
    with pytest.raises(StartError, match="symbolic link"):
        load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(StartError, match="regular file"):
        load(path)
    path.rmdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(StartError, match="regular file"):
        load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_another_user_is_refused(path: Path) -> None:
    load(path)
    os.chown(path, 12_345, -1)
    with pytest.raises(StartError, match="belongs to uid 12345"):
        load(path)


def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot write the key"):
        load(tmp_path / "missing" / "test.key")


def test_a_directory_is_made_private(tmp_path: Path) -> None:
    directory.make(str(tmp_path / "a/b"))
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    with pytest.raises(StartError, match="others can write"):
        directory.make(str(tmp_path / "open"))


def test_a_directory_is_held_by_one_process(tmp_path: Path) -> None:
    held = directory.lock(str(tmp_path), "storage")
    with pytest.raises(StartError, match=f"process {os.getpid()} uses"):
        directory.lock(str(tmp_path), "storage")
    os.close(held)
    os.close(directory.lock(str(tmp_path), "storage"))
