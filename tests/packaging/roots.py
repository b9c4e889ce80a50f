"""Debian systems to install into: an overlay on a cached tree for each test, entered by chroot(8)."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

RECORDER = """\
#!/bin/sh
echo "$(basename "$0") $*" >>/var/calls
"""
"""Stands in for a program that talks to the service manager, and remembers how it was called."""

BOOKKEEPING = ("/var/lib/dpkg/", "/var/log/dpkg.log", "/var/lib/rpm/", "/var/cache/ldconfig/", "/proc", "/tmp/")
"""What a package manager notes for itself."""


MOUNTS = """
mount -t tmpfs -o mode=755 tmpfs "$2"
mkdir "$2/changes" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/changes,workdir=$2/work" overlay "$2/root"
mkdir -p "$2/root/proc"
mount -t proc proc "$2/root/proc"
echo mounted
exec sleep infinity
"""
"""What a test writes stays in memory and goes with the mount namespace of a sleeping process."""


class Root:
    """A root directory over a tree that stays as it is, and commands in it. A context manager."""

    def __init__(self, tree: Path, place: Path) -> None:
        """``place``: an empty directory to mount on."""
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", MOUNTS, "sh", str(tree), str(place)]
        self._holder = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._holder.stdout is not None
        said = self._holder.stdout.readline()
        assert said == "mounted\n", f"cannot mount (it takes root, and a kernel with overlayfs): {said}"
        self._inside = f"{place}/root"
        self.path = Path(f"/proc/{self._holder.pid}/root{place}/root")

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.kill()
        self._holder.communicate()

    def run(self, *argv: str, timeout: float = 240.0, check: bool = True) -> str:
        """Standard output and error of a command in the root."""
        return self.run_outside("chroot", self._inside, *argv, timeout=timeout, check=check)

    def run_outside(self, *argv: str, timeout: float = 240.0, check: bool = True) -> str:
        """The same for one that sees the root as a directory: ``{root}`` in its words."""
        words = [word.replace("{root}", self._inside) for word in argv]
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        done = subprocess.run(
            ["nsenter", f"--target={self._holder.pid}", "--mount", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def show_memory(self, mebibytes: int) -> None:
        """Let /proc/meminfo in the root tell of so much."""
        total = mebibytes * 1024
        text = f"MemTotal: {total} kB\nMemFree: {total} kB\nMemAvailable: {total} kB\n"
        (self.path / "tmp/meminfo").write_text(text)
        self.run_outside("mount", "--bind", "{root}/tmp/meminfo", "{root}/proc/meminfo")

    def put(self, file: Path) -> str:
        """Copy a file into /tmp of the root; its path there."""
        shutil.copy(file, self.path / "tmp" / file.name)
        return f"/tmp/{file.name}"

    def pretend_systemd(self, *programs: str) -> None:
        """As if systemd ran: its directory is there, and ``programs`` only note that they were called."""
        (self.path / "run/systemd/system").mkdir(parents=True)
        for program in programs:
            stand_in = self.path / "usr/bin" / program
            stand_in.unlink(missing_ok=True)
            stand_in.write_text(RECORDER)
            stand_in.chmod(0o755)

    def calls(self) -> list[str]:
        """What was called since the last time, but for what only makes links: systemctl --root."""
        file = self.path / "var/calls"
        if not file.exists():
            return []
        lines = file.read_text().splitlines()
        file.unlink()
        return [line for line in lines if " --root=" not in line]

    def listing(self, below: str = "/") -> dict[str, str]:
        """Path -> type, mode, owner and content of everything in the root but the package manager's own notes."""
        found = {}
        start = self.path / below.lstrip("/")
        for directory, names, files in os.walk(start):
            if directory == str(self.path):
                names.remove("proc")
            for name in [*names, *files]:
                path = Path(directory) / name
                shown = "/" + str(path.relative_to(self.path))
                if not shown.startswith(BOOKKEEPING):
                    found[shown] = _described(path)
        return found


def differences(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Path -> what it was and what it is, for each that differs."""
    both = before.keys() | after.keys()
    return {path: (before.get(path), after.get(path)) for path in sorted(both) if before.get(path) != after.get(path)}


def _described(path: Path) -> str:
    found = path.lstat()
    told = f"{stat.filemode(found.st_mode)} {found.st_uid}:{found.st_gid}"
    if path.is_symlink():
        return f"{told} -> {path.readlink()}"
    if stat.S_ISREG(found.st_mode):
        return f"{told} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return told
