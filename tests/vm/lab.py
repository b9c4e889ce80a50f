"""The lab: boot a guest from the cached image, run commands in it, bring back what they made.

    with Lab(memory_mib=3072).boot() as guest:
        result = guest.run("systemctl is-system-running --wait")
        guest.fetch("/var/log/journal", tmp_path)

On the command line: ``python -m tests.vm.lab run [--memory MIB] [--append WORDS] -- COMMAND...`` and ``... build``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from . import tools
from .errors import LabError
from .image import PAYLOAD, Image, cache_directory, image
from .machine import Finished, Hardware, Machine, qemu_command
from .payload import PROJECT, packages_disk, project_disk
from .target import Target, parse

RESULTS = "/var/tmp/lab-results"
"""In the guest: a command run by Lab.run leaves here, also as $LAB_RESULTS, what is to be brought back."""

BOOT_TIMEOUT = 180.0  # seconds; 10 is usual, two busy cores make it 30


class Result(NamedTuple):
    """What a command did."""

    code: int  # exit code, or minus the signal that ended it
    output: str  # standard output and error, in the order they came
    results: Path | None = None  # where the results directory was put, if it was asked for


class Guest:
    """A guest that is up. Leaving its ``with`` block cuts its power: a snapshot has nothing to save.

    With ``persistent`` its root disk is an overlay of its own that outlives reboots and power cuts. A power cut loses
    what the guest's kernel, and QEMU's qcow2 tables, had not flushed; it does not reorder or tear writes below that.
    """

    def __init__(
        self, project: Path | None, base: Image, hardware: Hardware, persistent: bool, boot_timeout: float
    ) -> None:
        self._base = base
        self._hardware = hardware
        self._boot_timeout = boot_timeout
        self._directory = Path(tempfile.mkdtemp(prefix="edge-agent-vm-"))  # short: a socket's path has 108 bytes
        self._machine: Machine | None = None
        self.persistent = persistent
        try:
            self._others = [project_disk(project, self._directory)]
            if project is not None:
                self._others.append(packages_disk(project, hardware.target, cache_directory(), self._directory))
            self._home = f"{PAYLOAD}/src" if project is not None else "/root"
            self._disk = self._root_disk()
            self.start()
        except BaseException:
            self.close()
            raise

    def _root_disk(self) -> list[str]:
        if not self.persistent:
            return ["format=raw", "snapshot=on", f"file={self._base.disk}"]
        overlay = self._directory / "overlay.qcow2"
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(self._base.disk), "-F", "raw", str(overlay)]
        done = subprocess.run(create, capture_output=True, text=True)
        if done.returncode != 0:
            raise LabError(f"cannot make the guest's disk: {done.stderr.strip()}")
        return ["format=qcow2", f"file={overlay}"]

    @property
    def machine(self) -> Machine:
        """The running machine. LabError when it is off."""
        if self._machine is None or not self._machine.alive:
            raise LabError("cannot use the guest: it is powered off; fix: call start()")
        return self._machine

    @property
    def pid(self) -> int:
        """Of QEMU."""
        return self.machine.process.pid

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = 120.0,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        echo: IO[bytes] | None = None,
    ) -> Result:
        """Run ``command`` as root (text: by /bin/sh) and wait for it, in the project's tree if there is one, or /root.

        A process it leaves in the background keeps running, without its output being read.
        LabTimeoutError after ``timeout`` seconds; the guest is off then.
        """
        done = self._execute(command, timeout, env, cwd or self._home, merge=True, echo=echo)
        return Result(done.code, done.output.decode(errors="replace"))

    def check(self, command: str | Sequence[str], *, timeout: float = 120.0) -> str:
        """Run a command that must succeed; its output. LabError with that output when it does not."""
        result = self.run(command, timeout=timeout)
        if result.code != 0:
            raise LabError(f"cannot go on: {command!r} ended with {result.code} in the guest:\n{result.output}")
        return result.output

    def _execute(
        self,
        command: str | Sequence[str],
        timeout: float,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        *,
        merge: bool = False,
        input: bytes | None = None,  # noqa: A002 -- the name subprocess.run has for it
        echo: IO[bytes] | None = None,
    ) -> Finished:
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        request = {"argv": argv, "env": dict(env or {}), "cwd": cwd, "merge": merge}
        return self.machine.execute(request, timeout, input, echo)

    def fetch(self, source: str, into: Path, *, timeout: float = 120.0) -> Path:
        """Copy the content of a directory of the guest into ``into``, which is made; returns it."""
        done = self._execute(["tar", "-C", source, "-cf", "-", "."], timeout)
        if done.code != 0:
            raise LabError(f"cannot fetch {source} from the guest: {done.errors.decode(errors='replace').strip()}")
        into.mkdir(parents=True, exist_ok=True)
        # GNU tar refuses names that lead out of the directory.
        subprocess.run(["tar", "-C", str(into), "--no-same-owner", "-xf", "-"], input=done.output, check=True)
        return into

    def push(self, source: Path, into: str, *, timeout: float = 120.0) -> None:
        """Copy the content of a directory of the host into ``into`` in the guest, which is made, owned by root."""
        archive = ["tar", "-C", str(source), "--owner=0", "--group=0", "-cf", "-", "."]
        data = subprocess.run(archive, check=True, capture_output=True).stdout
        done = self._execute(["sh", "-c", 'mkdir -p "$0" && exec tar -C "$0" -xf -', into], timeout, input=data)
        if done.code != 0:
            raise LabError(f"cannot push to {into} in the guest: {done.errors.decode(errors='replace').strip()}")

    def start(self, *, cut_after: float | None = None) -> None:
        """Switch it on and wait for its runner: at boot, and again after power_off or cut_power.

        ``cut_after`` so many seconds its power is cut, wherever it is then: what runs meanwhile is a LabError.
        """
        if self._machine is not None and self._machine.alive:
            raise LabError("cannot start the guest: it is running")
        command = qemu_command(self._base, self._disk, self._others, self._directory, self._hardware)
        self._machine = Machine(command, self._directory, self._boot_timeout, cut_after)

    def power_off(self, *, timeout: float = 120.0) -> None:
        """Shut down in order, and wait for it."""
        by_hand = "sync; echo u >/proc/sysrq-trigger; echo o >/proc/sysrq-trigger"
        # systemd stops our runner on the way down, so it may not live to report.
        self.machine.tell(["sh", "-c", by_hand if self._hardware.kernel_only else "systemctl poweroff"])
        self.machine.wait(timeout)

    def cut_power(self, *, after: float | None = None) -> None:
        """SIGKILL to this QEMU, now or after so many seconds: what runs then is a LabError."""
        if after is not None:
            self.machine.cut_after(after)
        elif self._machine is not None:
            self._machine.kill()

    def reboot(self, *, timeout: float = 120.0) -> None:
        """Shut down in order and boot again. LabError without a persistent disk: nothing would be left to see."""
        if not self.persistent:
            raise LabError("cannot reboot a snapshot: its changes would be lost; fix: Lab(persistent=True)")
        self.power_off(timeout=timeout)
        self.start()

    def console(self, lines: int = 50) -> str:
        """The last lines of its serial console."""
        return self._machine.console(lines) if self._machine is not None else ""

    def close(self) -> None:
        """Cut its power and remove its files. May be called twice."""
        self.cut_power()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Lab:
    """How guests are made: for which project tree, on what hardware.

    Without a project the guest has Debian's packages and our runner alone, for what brings its own programs.
    """

    def __init__(
        self,
        project: Path | None = PROJECT,
        *,
        target: Target = Target(),  # noqa: B008 -- it cannot change
        memory_mib: int = 1024,
        cpus: int = 2,
        append: str = "psi=1",
        persistent: bool = False,
        kernel_only: bool = False,
        qemu_options: Sequence[str] = (),
        boot_timeout: float = BOOT_TIMEOUT,
    ) -> None:
        self.project = project
        self.hardware = Hardware(target, memory_mib, cpus, append, kernel_only, tuple(qemu_options))
        self.persistent = persistent
        self.boot_timeout = boot_timeout

    def boot(self) -> Guest:
        """A guest that is up; the image is built first when it must be. LabError when it does not come up."""
        target = self.hardware.target
        tools.require(target)
        return Guest(self.project, image(target), self.hardware, self.persistent, self.boot_timeout)

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = 600.0,
        env: Mapping[str, str] | None = None,
        results: Path | None = None,
        echo: IO[bytes] | None = None,
    ) -> Result:
        """Boot, run one command, bring back what it left in $LAB_RESULTS into ``results``, power off.

        A command that fails is a Result with its code; LabTimeoutError when it takes longer than ``timeout`` seconds.
        """
        with self.boot() as guest:
            guest.check(["mkdir", "-p", RESULTS])
            done = guest.run(command, timeout=timeout, env={"LAB_RESULTS": RESULTS, **(env or {})}, echo=echo)
            if results is not None:
                guest.fetch(RESULTS, results)
            return Result(done.code, done.output, results)


def exit_code(code: int) -> int:
    """As a shell says it: 128 plus the signal."""
    return 128 - code if code < 0 else code


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that ``run`` has here and in tests.vm.kernel."""
    parser.add_argument(
        "--target", type=parse, default=Target(), metavar="SUITE-ARCHITECTURE", help="the machine (bookworm-amd64)"
    )
    parser.add_argument("--without-project", action="store_true", help="Debian's packages and our runner alone")
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB", help="memory of the guest (1024)")
    parser.add_argument("--cpus", type=int, default=2, help="processors of the guest (2)")
    parser.add_argument("--append", default="psi=1", metavar="WORDS", help="kernel command line (psi=1)")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="for the command (600)")
    parser.add_argument("--results", type=Path, metavar="DIR", help=f"put here what the command left in {RESULTS}")
    parser.add_argument("command", nargs="+", metavar="-- COMMAND", help="one word: a line for the shell")


def run_command(options: argparse.Namespace, *, kernel_only: bool) -> int:
    """Run what the command line asks for; the guest's exit code."""
    lab = Lab(
        None if options.without_project else PROJECT,
        target=options.target,
        memory_mib=options.memory,
        cpus=options.cpus,
        append=options.append,
        kernel_only=kernel_only,
    )
    command = options.command[0] if len(options.command) == 1 else options.command
    done = lab.run(command, timeout=options.timeout, results=options.results, echo=sys.stdout.buffer)
    return exit_code(done.code)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 125 when the lab itself failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.lab", description="The virtual machine lab.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    builder = verbs.add_parser("build", help="build the image if the cache has none, and say where it is")
    builder.add_argument("target", type=parse, nargs="?", default=Target(), metavar="SUITE-ARCHITECTURE")
    run_arguments(verbs.add_parser("run", help="run one command in a fresh guest under systemd"))
    options = parser.parse_args(arguments)
    try:
        if options.verb == "run":
            return run_command(options, kernel_only=False)
        tools.require(options.target)
        begun = time.monotonic()
        print(f"{image(options.target).disk.parent} ({time.monotonic() - begun:.0f} s)")
    except LabError as error:
        print(error, file=sys.stderr)
        return 125
    return 0


if __name__ == "__main__":
    sys.exit(main())
