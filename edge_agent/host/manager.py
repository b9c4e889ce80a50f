"""The service manager: what it is told, and the one question it is asked. Silence where there is none.

Told: sd_notify(3) of its Type=notify unit, with WATCHDOG=1 from the loop, so that only a loop that turns says so.
Asked: whether SIGTERM means the end of the services, or a restart of the agent alone. Its signal is the same for both,
but the job it works on differs (org.freedesktop.systemd1(5)). systemctl reaches it by its private socket, so the answer
comes without a message bus, too, and late in a shutdown.
"""

from __future__ import annotations

import _socket
import os
import signal

from .loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .loop import Loop

PATIENCE = 5.0
"""Seconds for the answer; without one the services are stopped in order, which loses nothing but time."""

SHELL = "/bin/sh"
QUESTION = (
    'systemctl show --property=KillMode --value -- "$1" && '
    'exec systemctl list-jobs --plain --full --no-legend --no-pager -- "$1" "$2"'
)
_ANSWER = 64 * 1024


def tell(message: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send a message, where the service manager asked for it."""
    address = environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
        sock.send(message.encode())
    except OSError:
        pass  # the manager is gone or deaf: no reason not to run
    finally:
        sock.close()


def watchdog(loop: Loop, environ: Mapping[str, str] = os.environ) -> float:
    """Say WATCHDOG=1 from now on, twice in the time it is expected once. The interval in seconds; 0: nobody expects it.

    WATCHDOG_USEC and WATCHDOG_PID as sd_watchdog_enabled(3) has them.
    """
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or pid not in ("", str(os.getpid())):
        return 0.0
    interval = int(usec) / 2e6

    def beat() -> None:
        tell("WATCHDOG=1", environ)
        loop.at(loop.now() + interval, beat)

    beat()
    return interval


def unit_of(path: str) -> str:
    """The service whose cgroup holds ``path``, a directory below /sys/fs/cgroup or a line of /proc/PID/cgroup."""
    services = [part for part in path.strip().split("/") if part.endswith(".service")]
    return services[-1] if services else ""


def own_unit(environ: Mapping[str, str] = os.environ, cgroup: str = "/proc/self/cgroup") -> str:
    """The unit whose main process this is; '' when the service manager did not start it as one."""
    if not environ.get("NOTIFY_SOCKET"):
        return ""
    try:
        with open(cgroup, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    # The service manager's own hierarchy: the unified one, or the named one beside version 1.
    return next((unit for line in lines if line.startswith(("0::", "1:name=systemd:")) and (unit := unit_of(line))), "")


def restarts_alone(answer: str, unit: str, home: str) -> bool:
    """Whether ``unit`` ends only to be started again, and the processes of its services outlive that.

    ``home``: the unit whose control group the services are in; '' when it is none of the manager's.
    """
    mode, _, rest = answer.partition("\n")
    jobs = {}
    for line in rest.splitlines():
        fields = line.split()  # id, unit, type, state
        if len(fields) >= 3:
            jobs[fields[1]] = fields[2]
    if jobs.get(unit) != "restart":
        return False
    if home == unit:
        return mode in ("process", "none")
    return jobs.get(home) not in ("stop", "restart")


def ask(loop: Loop, unit: str, home: str, answered: Callable[[bool], None]) -> None:
    """Ask the manager and call back: True, ``restarts_alone``; False, not so, or no answer in time."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, write, 1)]
        argv = [SHELL, "-c", QUESTION, SHELL, unit, home or unit]
        pid = os.posix_spawn(SHELL, argv, os.environ, file_actions=actions, setpgroup=0, setsigdef=[signal.SIGPIPE])
        pidfd = os.pidfd_open(pid)
    except OSError:
        os.close(read)
        answered(False)
        return
    finally:
        os.close(write)

    timer = loop.at(loop.now() + PATIENCE, lambda: os.killpg(pid, signal.SIGKILL))

    def ended(_events: int) -> None:
        timer.cancel()
        loop.forget(pidfd)
        os.close(pidfd)
        status = os.waitpid(pid, 0)[1]
        try:
            answer = os.read(read, _ANSWER)
        except BlockingIOError:  # a child of the shell's holds the other end, and wrote nothing
            answer = b""
        os.close(read)
        answered(status == 0 and restarts_alone(answer.decode(errors="replace"), unit, home))

    loop.watch(pidfd, READ, ended)
