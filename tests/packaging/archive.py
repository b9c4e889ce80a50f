"""What is in a .deb and in a .rpm, the same way for both."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """A file, directory or link as it will be installed."""

    mode: int  # with the type: S_IFREG, S_IFDIR, S_IFLNK
    owner: str
    group: str
    size: int
    target: str  # of a link
    config: bool


def entries(package: Path) -> dict[str, Entry]:
    """Absolute path -> entry."""
    return _deb(package) if package.suffix == ".deb" else _rpm(package)


def unpack(package: Path, directory: Path) -> None:
    """The files of a .deb, without its scripts."""
    subprocess.run(["dpkg-deb", "--extract", package, directory], check=True)


def field(package: Path, name: str) -> str:
    """A field of a .deb's control file."""
    return subprocess.run(
        ["dpkg-deb", "--field", package, name], capture_output=True, text=True, check=True
    ).stdout.strip()


def _deb(package: Path) -> dict[str, Entry]:
    conffiles = subprocess.run(
        ["dpkg-deb", "--info", package, "conffiles"], capture_output=True, text=True, check=True
    ).stdout.split()
    kinds = {tarfile.REGTYPE: 0o100000, tarfile.DIRTYPE: 0o040000, tarfile.SYMTYPE: 0o120000}
    found = {}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                path = "/" + member.name.removeprefix("./").rstrip("/")
                mode = kinds[member.type] | (0o777 if member.issym() else member.mode)
                linked = member.linkname
                owner, group = member.uname or _number(member.uid), member.gname or _number(member.gid)
                entry = Entry(mode, owner, group, member.size, linked, path in conffiles)
                found[path] = entry
    found.pop("/", None)
    return found


def _number(number: int) -> str:
    """nfpm writes no name for the files that it makes itself."""
    return "root" if number == 0 else str(number)


def _rpm(package: Path) -> dict[str, Entry]:
    columns = (
        "FILENAMES",
        "FILEMODES:octal",
        "FILEUSERNAME",
        "FILEGROUPNAME",
        "LONGFILESIZES",
        "FILELINKTOS",
        "FILEFLAGS",
    )
    form = "[" + "\\t".join(f"%{{{column}}}" for column in columns) + "\\n]"
    done = subprocess.run(["rpm", "-qp", "--qf", form, package], capture_output=True, text=True, check=True)
    found = {}
    for line in done.stdout.splitlines():
        path, mode, owner, group, size, target, flags = line.split("\t")
        value = int(mode, 8)
        if value & 0o170000 == 0o120000:
            value = 0o120777
        found[path] = Entry(value, owner, group, int(size), target, bool(int(flags) & 1))
    return found
