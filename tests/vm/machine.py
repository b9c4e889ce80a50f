"""One QEMU process and the channel into its guest."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .channel import EXIT, HELLO, RUN, STDERR, STDIN, STDOUT, Decoder, frame, frames
from .channel import PORT_NAME as PORT
from .errors import LabError, LabTimeoutError
from .image import Image
from .target import Target

CHUNK = 1 << 16
SEND_TIMEOUT = 30.0  # seconds


class Hardware(NamedTuple):
    """What the guest's machine is like."""

    target: Target = Target()
    memory_mib: int = 1024
    cpus: int = 2
    append: str = "psi=1"  # kernel command line, added to ours
    kernel_only: bool = False  # the runner alone instead of systemd
    qemu_options: tuple[str, ...] = ()


class Finished(NamedTuple):
    """A command that ran in the guest."""

    code: int  # exit code, or minus the signal
    output: bytes  # standard output; with ``merge`` standard error is in it
    errors: bytes  # standard error, without ``merge``


def qemu_command(
    image: Image, root: Sequence[str], others: Sequence[Path], directory: Path, hardware: Hardware
) -> list[str]:
    """QEMU's argument list. ``root``: -drive options that say what the root disk is; ``others``: raw, never changed."""
    mode = "kernel" if hardware.kernel_only else "systemd"
    board = hardware.target.board
    command_line = f"root=/dev/vda rw console={board.console} quiet panic=-1 lab.init={mode} {hardware.append}"
    return [
        # The guest dies with us even when we are killed.
        *("setpriv", "--pdeathsig", "KILL", "--"),
        board.program,
        *("-name", "edge-agent-lab"),
        *board.options,
        *("-m", str(hardware.memory_mib), "-smp", str(hardware.cpus)),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initramfs), "-append", command_line),
        *("-drive", ",".join(["if=virtio", *root])),
        *(word for disk in others for word in ("-drive", f"if=virtio,format=raw,snapshot=on,file={disk}")),
        *("-serial", f"file:{directory / 'console.log'}"),
        *("-chardev", f"socket,id=lab,path={directory / 'channel'}"),
        *("-device", "virtio-serial-pci", "-device", f"virtserialport,chardev=lab,name={PORT}"),
        *hardware.qemu_options,
    ]


class Machine:
    """A running guest. Everything that waits has a limit; at the limit this QEMU process is killed, and no other."""

    def __init__(
        self, command: list[str], directory: Path, boot_timeout: float, cut_after: float | None = None
    ) -> None:
        self.directory = directory
        self._decoder = Decoder()
        self._waiting: deque[tuple[bytes, bytes]] = deque()
        self._channel: socket.socket | None = None
        self._cut: threading.Timer | None = None
        path = directory / "channel"
        path.unlink(missing_ok=True)
        deadline = time.monotonic() + boot_timeout
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(1)
            self.process = self._launch(command)
            if cut_after is not None:
                self.cut_after(cut_after)
            try:
                self._accept(listener, deadline)
                self.hello = self._greeting(deadline)
            except BaseException:
                self.kill()
                raise

    def _launch(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.directory / "qemu.log").open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"TMPDIR": str(self.directory)},  # snapshot=on keeps its changes there
                start_new_session=True,  # a Ctrl-C is for us: we end the guest ourselves
            )

    # -- the channel -------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket, deadline: float) -> None:
        """QEMU connects within its first milliseconds, or it has found fault with its options."""
        listener.settimeout(0.2)
        while self._channel is None:
            with contextlib.suppress(TimeoutError):
                self._channel = listener.accept()[0]
            if self._channel is None and (self.process.poll() is not None or time.monotonic() > deadline):
                raise self._gone("QEMU did not start")

    def _next(self, deadline: float) -> tuple[bytes, bytes]:
        """The next frame from the guest. LabTimeoutError past ``deadline``, LabError when the guest has gone."""
        assert self._channel is not None
        while not self._waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LabTimeoutError(f"cannot wait longer for the guest: time is up\n{self.console(20)}")
            self._channel.settimeout(left)
            try:
                data = self._channel.recv(CHUNK)
            except TimeoutError:
                continue
            except OSError:
                data = b""
            if not data:
                raise self._gone("the guest has gone")
            self._waiting.extend(self._decoder.feed(data))
        return self._waiting.popleft()

    def _greeting(self, deadline: float) -> dict[str, Any]:
        """What the runner says first: its kernel, its cgroup."""
        kind, body = self._next(deadline)
        if kind != HELLO:
            raise LabError(f"cannot use the guest: it began with a frame {kind!r} instead of its hello")
        said: dict[str, Any] = json.loads(body)
        return said

    def _send(self, data: bytes, deadline: float) -> None:
        assert self._channel is not None
        self._channel.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            self._channel.sendall(data)
        except TimeoutError:
            raise LabTimeoutError("cannot send to the guest: it does not read") from None
        except OSError:
            raise self._gone("the guest has gone") from None

    def _gone(self, what: str) -> LabError:
        self.kill()
        said = (self.directory / "qemu.log").read_text(errors="replace").strip()
        return LabError(f"cannot go on: {what}; QEMU says: {said or 'nothing'}; its console ends:\n{self.console(60)}")

    def tell(self, argv: Sequence[str]) -> None:
        """Start a command as root and wait for nothing: it will end the guest."""
        request = {"argv": list(argv), "env": {}, "cwd": "/", "merge": True, "stdin": False}
        self._send(frame(RUN, json.dumps(request).encode()), time.monotonic() + SEND_TIMEOUT)

    def execute(
        self,
        request: dict[str, Any],
        timeout: float,
        input: bytes | None = None,  # noqa: A002 -- the name subprocess.run has for it
        echo: Any = None,
    ) -> Finished:
        """Run one command; ``echo`` (a binary stream) gets its output as it comes.

        LabTimeoutError after ``timeout`` seconds, with the output so far; the guest is killed then.
        """
        deadline = time.monotonic() + timeout
        pieces: dict[bytes, list[bytes]] = {STDOUT: [], STDERR: []}
        try:
            self._send(frame(RUN, json.dumps(request | {"stdin": input is not None}).encode()), deadline)
            if input is not None:
                self._send(frames(STDIN, input) + frame(STDIN), deadline)
            while True:
                kind, body = self._next(deadline)
                if kind == EXIT:
                    code = int(json.loads(body)["code"])
                    return Finished(code, b"".join(pieces[STDOUT]), b"".join(pieces[STDERR]))
                pieces[kind].append(body)
                if echo is not None:
                    echo.write(body)
                    echo.flush()
        except LabTimeoutError:
            self.kill()
            said = b"".join(pieces[STDOUT]).decode(errors="replace")
            what = " ".join(request["argv"])
            raise LabTimeoutError(
                f"cannot wait longer for {what!r}: {timeout:g} s are up; it had written:\n{said[-4000:]}", said
            ) from None
        except BaseException:  # a Ctrl-C in the middle: the channel's state is unknown from here on
            self.kill()
            raise

    # -- its life ----------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def console(self, lines: int) -> str:
        """The last lines of the serial console."""
        log = self.directory / "console.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""

    def wait(self, timeout: float) -> None:
        """Wait until the guest has powered itself off. LabTimeoutError, and it is killed, when it does not."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LabTimeoutError(f"cannot wait longer for power-off\n{self.console(20)}") from None
        self._close()

    def cut_after(self, seconds: float) -> None:
        """Cut its power then, whatever goes on: whoever talks to the guest gets a LabError."""
        self._cut = threading.Timer(seconds, self.process.send_signal, (signal.SIGKILL,))
        self._cut.daemon = True
        self._cut.start()

    def kill(self) -> None:
        """Cut its power: SIGKILL to this QEMU process."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._close()

    def _close(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
