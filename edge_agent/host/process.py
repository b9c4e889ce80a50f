"""Starting a process in two phases, and telling one process from another.

``launch`` forks a child that joins its containment, takes on every attribute of its service, and then waits.
Only after ``release`` does it execute the program, so the agent can put the pid on record first. When the agent
dies before that, the child exits without executing anything. Single-threaded callers only: the child runs Python
between fork(2) and execve(2).
"""

from __future__ import annotations

import errno
import os
import resource
import signal

from ..model import Sandbox
from ..records import Record
from . import sandbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Never, Protocol

    from ..model import Service

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

ERROR_BYTES = 4000  # less than PIPE_BUF: one atomic write(2), so the agent never sees half a message

IOPRIO_SET = {
    "x86_64": 251,
    "aarch64": 30,
    "armv7l": 314,
    "armv6l": 314,
    "i686": 289,
    "i386": 289,
    "riscv64": 30,
}
"""Numbers of ioprio_set(2), which the C library does not wrap, by ``uname -m``."""

NO_SANDBOX = Sandbox()

_changed_signals: list[int] = []  # whose disposition is not the default in this process, found at the first launch
_PERMISSION = (errno.EPERM, errno.EACCES)


class Child(Record):
    """A forked process that waits for its release. The caller owns the three descriptors."""

    pid: int
    pidfd: int  # readable when the process has ended
    started: int  # clock ticks since boot: with the pid, the process's identity
    release_fd: int  # ``release`` writes here
    error_fd: int  # non-blocking; ``read_error`` reads it when it becomes readable


class LaunchError(Exception):
    """The process could not be made; the text is a sentence for people."""


class _SetupError(Exception):
    """Raised in the child; its text goes to the agent."""


if TYPE_CHECKING:

    class Processes(Protocol):
        """The door to processes, as this module is one: what the agent does with them, and nothing else."""

        def launch(
            self,
            service: Service,
            *,
            entry_fd: int,
            stdout: int,
            env_extra: tuple[tuple[str, str], ...] = (),
            notify_path: str | None = None,
        ) -> Child:
            """Fork the service's process and hold it. Raises LaunchError."""

        def release(self, child: Child) -> bool:
            """Let it execute its program."""

        def read_error(self, fd: int) -> str | None:
            """What it said before it executed."""

        def send_signal(self, pidfd: int, signum: int) -> bool:
            """False: it has ended."""

        def reap(self, pid: int) -> int | None:
            """How it ended."""

        def open_pidfd(self, pid: int, started: int) -> int:
            """A descriptor of exactly that process, or -1."""

        def read_stat(self, pid: int) -> list[bytes] | None:
            """Fields of /proc/PID/stat from the third on."""

        def program(self, pid: int) -> str:
            """The path of what it executes."""


def launch(
    service: Service,
    *,
    entry_fd: int,
    stdout: int,
    env_extra: tuple[tuple[str, str], ...] = (),
    notify_path: str | None = None,
    chroot: str | None = None,
    beside: int = 0,
) -> Child:
    """Fork the service's process and hold it before its first instruction.

    ``entry_fd``: cgroup.procs of its cgroup, open for writing, or -1. ``stdout``: becomes its standard output and
    error. Its environment is the service's, ``env_extra``, a default PATH, and with ``notify_path`` NOTIFY_SOCKET and
    WATCHDOG_USEC. ``beside``: a process of the same service, whose mounts it shares instead of making its own.
    Descriptors 0 to 2 must be open in the caller, and its signal handlers installed before the first
    launch. Raises LaunchError.
    """
    opened: list[int] = []
    try:
        release_read, release_write = os.pipe2(os.O_CLOEXEC)
        opened += release_read, release_write
        error_read, error_write = os.pipe2(os.O_CLOEXEC)
        opened += error_read, error_write
        # A signal between fork and the reset of its handler would reach the agent's wakeup pipe from the child.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _signals())
        try:
            pid = os.fork()
            if pid == 0:
                _child(service, entry_fd, stdout, release_read, error_write, env_extra, notify_path, chroot, beside)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    except OSError as error:
        for fd in opened:
            os.close(fd)
        raise LaunchError(f"cannot fork for {service.name}: {error.strerror}; {_fork_fix(error.errno)}") from None
    os.close(release_read)
    os.close(error_write)
    os.set_blocking(error_read, False)
    try:
        pidfd = os.pidfd_open(pid)
        started = start_time(pid)
    except OSError as error:
        os.close(release_write)  # end of file: the child exits
        os.close(error_read)
        os.waitpid(pid, 0)
        what = f"cannot hold process {pid} of {service.name}"
        raise LaunchError(f"{what}: {error.strerror}; {_fork_fix(error.errno)}") from None
    return Child(pid, pidfd, started or 0, release_write, error_read)


def _signals() -> list[int]:
    """Signals to reset in a child; going through all of them in every child would double its time."""
    if not _changed_signals:
        _changed_signals.extend(number for number in range(1, 32) if signal.getsignal(number) != signal.SIG_DFL)
    return _changed_signals


def _fork_fix(code: int | None) -> str:
    if code == errno.ENOMEM:
        return "fix: give the agent a larger memory reserve"
    if code in (errno.EMFILE, errno.ENFILE):
        return "fix: raise the agent's open-files limit (LimitNOFILE=)"
    if code == errno.EAGAIN:
        return "fix: raise the limit on processes (TasksMax=, ulimit -u), or find who uses them up"
    return "fix: use a kernel of at least 5.4"


def release(child: Child) -> bool:
    """Let the child execute its program, and close ``release_fd``. False: it has died in the meantime."""
    try:
        os.write(child.release_fd, b"1")
    except BrokenPipeError:
        return False
    finally:
        os.close(child.release_fd)
    return True


def read_error(fd: int) -> str | None:
    """What the child said: '' once it has executed its program, its failure as a sentence, None: nothing yet."""
    try:
        return os.read(fd, ERROR_BYTES).decode(errors="replace")
    except BlockingIOError:
        return None


def send_signal(pidfd: int, signum: int) -> bool:
    """Send a signal to exactly that process. False: it has ended, and somebody collected it."""
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return False
    return True


def reap(pid: int) -> int | None:
    """Collect an ended child: its exit code, or minus the signal; None: it runs, or it is not this process's child."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if ended else None


def read_stat(pid: int, proc: str = "/proc") -> list[bytes] | None:
    """Fields of /proc/PID/stat from the third on, proc(5): [0] state, [1] ppid, [2] pgrp, [3] session, [19] start."""
    try:
        fd = os.open(f"{proc}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 2048)
    except OSError:  # ESRCH: it went between the two calls
        return None
    finally:
        os.close(fd)
    fields = text[text.rfind(b")") + 2 :].split()  # a program may have ')' and spaces in its name
    return fields if len(fields) > 19 else None


def start_time(pid: int, proc: str = "/proc") -> int | None:
    """When the process started, clock ticks since boot (field 22); None: there is no such process."""
    fields = read_stat(pid, proc)
    return None if fields is None else int(fields[19])


def program(pid: int, proc: str = "/proc") -> str:
    """The path of the program a process executes; '' when it cannot be told."""
    try:
        return os.readlink(f"{proc}/{pid}/exe")
    except OSError:
        return ""


def same_process(pid: int, started: int, proc: str = "/proc") -> bool:
    """Does ``pid`` still run, and is it the process that started then, not one that got its number?"""
    fields = read_stat(pid, proc)
    return fields is not None and int(fields[19]) == started and fields[0] not in (b"Z", b"X")


def open_pidfd(pid: int, started: int, proc: str = "/proc") -> int:
    """A descriptor of exactly that process, or -1 when it is gone. The identity is checked after opening: no race."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return -1
    if same_process(pid, started, proc):
        return fd
    os.close(fd)
    return -1


# -- in the child ------------------------------------------------------------------------------------------------------


def _child(
    service: Service,
    entry_fd: int,
    stdout: int,
    release_fd: int,
    error_fd: int,
    env_extra: tuple[tuple[str, str], ...],
    notify_path: str | None,
    chroot: str | None,
    beside: int,
) -> Never:
    text = ""
    try:
        if entry_fd >= 0:
            _try("join its cgroup", "see `edge-agent check`", os.write, entry_fd, b"0")
        _reset_signals()
        os.setsid()
        _take_descriptors(stdout, release_fd, error_fd)
        _take_attributes(service)
        if chroot is not None:
            _try(f"change root to {chroot}", "create that directory", os.chroot, chroot)
        confine = _isolate(service, notify_path, beside)
        _take_rlimits(service)
        _take_identity(service)
        confine()
        _try(f"enter its directory {service.cwd}", "create it, or give its user access", os.chdir, service.cwd)
        environment = _environment(service, env_extra, notify_path)
        if os.read(release_fd, 1):
            _execute(service.argv, environment)
    except _SetupError as error:
        text = f"cannot start {service.name}: {error}"
    except BaseException as error:  # nothing may unwind into the agent's own code in this process
        text = f"cannot start {service.name}: {error!r}; fix: report this"
    try:
        if text:
            os.write(error_fd, text.encode(errors="replace")[:ERROR_BYTES])
    finally:
        os._exit(127)


def _try(what: str, fix: str, call: Callable[..., object], *args: object) -> None:
    try:
        call(*args)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _SetupError(f"cannot {what}: {reason}; fix: {fix}") from None


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in _signals():  # ignored ones, as SIGPIPE in every Python, would stay ignored after execve
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _take_descriptors(stdout: int, release_fd: int, error_fd: int) -> None:
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(stdout, 1)
    os.dup2(stdout, 2)
    # The program would not see the others anyway (close-on-exec), but until then they would keep the agent's
    # connections, and the other children's release pipes, open.
    low, high = sorted((release_fd, error_fd))
    os.closerange(3, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, os.sysconf("SC_OPEN_MAX"))


def _take_attributes(service: Service) -> None:
    """Everything that may need privilege, before it is dropped."""
    os.umask(0o022)
    # The agent's own value is inherited; it is usually low, and a service must not have it.
    score = str(service.oom_score_adj)
    _wish(f"set oom_score_adj {score}" if score != "0" else "", _write, "/proc/self/oom_score_adj", score)
    _wish(f"set nice {service.nice}" if service.nice else "", os.setpriority, os.PRIO_PROCESS, 0, service.nice)
    if service.nice:
        # sched(7): setsid has made an autogroup; where no cpu controller weighs services, its nice value counts.
        try:
            _write("/proc/self/autogroup", str(service.nice))
        except OSError:
            pass  # not built in, or too soon after the last change
    if service.scheduler is not None:
        policy, priority = service.scheduler
        parameters = os.sched_param(priority)
        _wish(f"set scheduler {policy} priority {priority}", os.sched_setscheduler, 0, policy, parameters)
    if service.ioprio is not None:
        _wish(f"set io priority {service.ioprio}", _set_ioprio, *service.ioprio)


def _take_rlimits(service: Service) -> None:
    """They need privilege too, but hold for this process itself: what opens files or takes memory comes before."""
    for number, soft, hard in service.rlimits:
        _wish(f"set rlimit {number} to {soft}:{hard}", resource.setrlimit, number, (soft, hard))


def _wish(what: str, call: Callable[..., object], *args: object) -> None:
    """An attribute that an agent without privilege may be refused: then the service runs without, and its log says so.

    With an empty ``what`` it is a default nobody asked for, and not worth a line.
    """
    try:
        call(*args)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if os.geteuid() == 0 or getattr(error, "errno", errno.EPERM) not in _PERMISSION:
            raise _SetupError(f"cannot {what}: {reason}; fix: take the setting out, or correct it") from None
        if what:
            _say(f"cannot {what}: {reason}; fix: run the agent as root")


def _say(text: str) -> None:
    try:
        os.write(2, f"edge-agent: {text}\n".encode())
    except OSError:
        pass  # a full pipe or a closed journal must not keep the service from starting


def _set_ioprio(kind: int, level: int) -> None:
    # Imported here, in the child and only when asked for: it would cost the agent 1 MiB.
    import ctypes

    number = IOPRIO_SET.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(number), 1, 0, kind << 13 | level) != 0:  # IOPRIO_WHO_PROCESS, itself
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _isolate(service: Service, notify_path: str | None, beside: int) -> Callable[[], None]:
    """What of its sandbox needs privilege, at once; the rest, by the function returned, once its user is another."""
    if service.sandbox == NO_SANDBOX:
        return lambda: None

    def confine(call: Callable[..., None], *args: object) -> None:
        try:
            call(service, *args)
        except sandbox.SandboxError as error:
            if service.sandbox.required:
                raise _SetupError(f"{error}, or set required: false in its sandbox") from None
            _say(f"not sandboxed as it should be: {error}")  # a default, which the profile does not insist on

    confine(*((sandbox.join, beside) if beside else (sandbox.isolate, notify_path)))
    confine(sandbox.limit)
    return lambda: confine(sandbox.seal)


def _take_identity(service: Service) -> None:
    if service.uid is not None and service.gid is None:
        raise _SetupError(f"has a user ({service.uid}) but no group; fix: set its group")
    fix = "run the agent as root, or take the user and group out"
    if service.gid is not None:
        if os.geteuid() == 0 or service.groups:
            _try(f"set groups {service.groups}", fix, os.setgroups, service.groups)
        _try(f"become group {service.gid}", fix, os.setresgid, service.gid, service.gid, service.gid)
    if service.uid is not None:
        _try(f"become user {service.uid}", fix, os.setresuid, service.uid, service.uid, service.uid)


def _environment(service: Service, extra: tuple[tuple[str, str], ...], notify_path: str | None) -> dict[str, str]:
    environment = {"PATH": DEFAULT_PATH}
    environment.update(service.env)
    environment.update(extra)
    if notify_path is not None:
        environment["NOTIFY_SOCKET"] = notify_path
        if service.health.interval > 0:
            environment["WATCHDOG_USEC"] = str(int(service.health.interval * 1_000_000))
    return environment


def _execute(argv: tuple[str, ...], environment: dict[str, str]) -> None:
    """Replace this process; raises _SetupError when no candidate can be executed."""
    program = argv[0]
    folders = [""] if "/" in program else environment["PATH"].split(":")
    refused: int | None = errno.ENOENT
    named = program
    for folder in folders:
        path = f"{folder}/{program}" if folder else program
        try:
            os.execve(path, argv, environment)  # noqa: S606 - no shell is meant
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # found and refused says more than not found
                refused, named = error.errno, path
                if error.errno != errno.EACCES:
                    break
    raise _SetupError(f"cannot execute {named}: {_why_not_executed(refused, named)}")


def _why_not_executed(code: int | None, path: str) -> str:
    if code == errno.ENOENT and os.path.exists(path):
        return "the interpreter that its first line or its ELF header names does not exist; fix: install that"
    fixes = {
        errno.ENOENT: "install the program, or correct the command",
        errno.EACCES: "make it executable, and reachable, for the service's user",
        errno.ENOEXEC: "use a program for this machine, or a script with a #! line",
        errno.E2BIG: "shorten the arguments and the environment",
        errno.EAGAIN: "raise RLIMIT_NPROC of the service",
    }
    return f"{os.strerror(code or 0)}; fix: {fixes.get(code or 0, 'correct the command')}"


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
