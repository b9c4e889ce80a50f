"""The two-phase launch, with real processes: everything is in place before the program's first instruction."""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from edge_agent.host import process
from edge_agent.model import Health, Service
from tests.contract.places import PATIENCE, SLEEP, RealPlaces, wait_until

TELL = """
import json, os, resource, signal, sys
facts = {
    "cgroup": open("/proc/self/cgroup").read(),
    "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "autogroup": open("/proc/self/autogroup").read() if os.path.exists("/proc/self/autogroup") else "",
    "scheduler": os.sched_getscheduler(0),
    "score": int(open("/proc/self/oom_score_adj").read()),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
    "cwd": os.getcwd(),
    "umask": os.umask(0),
    "session": [os.getsid(0), os.getpgrp(), os.getpid()],
    "environment": dict(os.environ),
    "status": {line.split(":")[0]: line.split(":")[1].strip() for line in open("/proc/self/status")},
    "descriptors": {name: os.readlink("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")
                    if os.path.exists("/proc/self/fd/" + name)},
}
os.write(1, json.dumps(facts).encode())
"""


def _run(real: RealPlaces, service: Service) -> dict[str, object]:
    """What the program saw of itself."""
    containment = real.containment()
    containment.prepare(service)
    reader, writer = os.pipe()
    child = real.launch(containment, service, writer)
    os.close(writer)
    assert process.release(child)
    data = b""
    while part := os.read(reader, 65536):
        data += part
    os.close(reader)
    failure = process.read_error(child.error_fd)
    assert failure == "", failure
    assert process.reap(child.pid) in (0, None)
    os.close(child.error_fd)
    os.close(child.pidfd)
    facts = json.loads(data)
    assert isinstance(facts, dict)
    return facts


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change user and to raise priority")
def test_every_attribute_is_there_at_the_first_instruction(real: RealPlaces, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    service = Service(
        "tell",
        (sys.executable, "-S", "-c", TELL),
        env=(("COLOUR", "green"), ("PATH", "/usr/bin:/bin")),
        cwd="/usr",
        uid=65534,
        gid=65534,
        groups=(65534, 10),
        nice=-5,
        scheduler=(os.SCHED_BATCH, 0),
        ioprio=(2, 6),
        oom_score_adj=321,
        rlimits=((resource.RLIMIT_NOFILE, 100, 200), (resource.RLIMIT_CORE, 0, -1)),
    )
    facts = _run(real, service)
    if real.kind == "cgroup2":
        assert str(facts["cgroup"]).strip().endswith("/services/tell")
    assert facts["nice"] == -5
    assert facts["scheduler"] == os.SCHED_BATCH
    assert facts["score"] == 321
    assert facts["files"] == [100, 200]
    assert facts["core"] == [0, resource.RLIM_INFINITY]
    assert facts["ids"] == [[65534] * 3, [65534] * 3, [10, 65534]]
    assert facts["cwd"] == "/usr"
    assert facts["umask"] == 0o022
    pid = facts["session"][2]  # type: ignore[index]  # json
    assert facts["session"] == [pid, pid, pid]
    environment = {"COLOUR": "green", "PATH": "/usr/bin:/bin", "LC_CTYPE": "C.UTF-8"}
    if real.kind == "tree":
        environment["EDGE_AGENT_UNIT"] = f"{tmp_path}:tell"
    assert facts["environment"] == environment
    status = facts["status"]
    assert isinstance(status, dict)
    # Python itself ignores SIGPIPE (13) and SIGXFSZ (25), and handles SIGINT (2); nothing else may be left over.
    # (32 and 33 are the C library's own; a parent such as make may hand them down ignored, and nobody can change that.)
    assert int(status["SigIgn"], 16) & ~(0b11 << 31) == 1 << 12 | 1 << 24
    assert int(status["SigCgt"], 16) == 1 << 1
    assert int(status["SigBlk"], 16) == 0
    descriptors = facts["descriptors"]
    assert isinstance(descriptors, dict)
    assert set(descriptors) == {"0", "1", "2"}
    assert descriptors["0"] == "/dev/null"
    assert descriptors["1"] == descriptors["2"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to set an I/O priority class")
def test_io_priority_is_set(real: RealPlaces) -> None:
    containment = real.containment()
    service = Service("slow", SLEEP, ioprio=(3, 0))
    containment.prepare(service)
    child = real.launch(containment, service)
    assert process.release(child)
    assert select.select([child.error_fd], [], [], PATIENCE)[0]
    assert process.read_error(child.error_fd) == ""
    import ctypes

    number = {"x86_64": 252, "aarch64": 31}.get(os.uname().machine)
    if number is None:
        pytest.skip("ioprio_get(2) has no number here")
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(ctypes.c_long(number), 1, child.pid) >> 13 == 3
    os.close(child.error_fd)
    os.close(child.pidfd)


def test_nothing_is_executed_before_the_release(real: RealPlaces, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    service = Service("held", ("/bin/sh", "-c", f"echo $$ > {proof}; sleep 1000"))
    containment = real.containment()
    containment.prepare(service)
    child = real.launch(containment, service)
    assert select.select([child.error_fd, child.pidfd], [], [], 0.2)[0] == []
    assert wait_until(lambda: containment.members("held") == [child.pid])
    assert containment.owns("held", child.pid)
    assert not proof.exists()
    assert process.read_error(child.error_fd) is None
    assert process.release(child)
    assert wait_until(lambda: proof.exists() and proof.read_text(encoding="ascii").strip() == str(child.pid))
    os.close(child.error_fd)
    os.close(child.pidfd)


def test_a_held_child_exits_when_its_parent_dies(real: RealPlaces, tmp_path: Path) -> None:
    """The parent's death closes the release pipe; no sibling may hold the other end open."""
    proof = tmp_path / "ran"
    containment = real.containment()
    services = [Service(f"held{number}", ("/usr/bin/touch", str(proof))) for number in range(3)]
    children = []
    for service in services:
        containment.prepare(service)
        children.append(real.launch(containment, service))
    for child in children:
        os.close(child.release_fd)
        assert select.select([child.pidfd], [], [], PATIENCE)[0], "a sibling holds its release pipe"
        assert process.reap(child.pid) == 127
        assert process.read_error(child.error_fd) == ""
        os.close(child.error_fd)
        os.close(child.pidfd)
    assert not proof.exists()


def test_a_killed_child_takes_no_release(real: RealPlaces) -> None:
    containment = real.containment()
    service = Service("gone", SLEEP)
    containment.prepare(service)
    child = real.launch(containment, service)
    containment.kill("gone")
    assert select.select([child.pidfd], [], [], PATIENCE)[0]
    assert process.reap(child.pid) == -signal.SIGKILL
    assert not process.release(child)
    os.close(child.error_fd)
    os.close(child.pidfd)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"argv": ("/nonexistent/program",)}, ("cannot execute /nonexistent/program", "No such file", "; fix: ")),
        ({"argv": ("no-such-program-here",)}, ("cannot execute no-such-program-here", "No such file", "; fix: ")),
        ({"argv": ("/etc/passwd",)}, ("cannot execute /etc/passwd", "Permission denied", "; fix: make it executable")),
        ({"cwd": "/nonexistent"}, ("enter its directory /nonexistent", "No such file", "; fix: ")),
        ({"uid": 65534}, ("has a user (65534) but no group", "; fix: ")),
        ({"rlimits": ((resource.RLIMIT_NOFILE, 20, 10),)}, ("cannot set rlimit", "; fix: ")),
        ({"scheduler": (77, 0)}, ("cannot set scheduler 77", "; fix: ")),
    ],
)
def test_failures_are_sentences(real: RealPlaces, change: dict[str, object], words: tuple[str, ...]) -> None:
    service = Service("broken", SLEEP)._replace(**change)  # type: ignore[arg-type]  # as the parameters have it
    containment = real.containment()
    containment.prepare(service)
    child = real.launch(containment, service)
    process.release(child)
    assert select.select([child.error_fd], [], [], PATIENCE)[0]
    text = process.read_error(child.error_fd)
    assert text is not None
    assert text.startswith("cannot start broken: ")
    for word in words:
        assert word in text
    assert select.select([child.pidfd], [], [], PATIENCE)[0]
    assert process.reap(child.pid) == 127
    os.close(child.error_fd)
    os.close(child.pidfd)


def test_a_script_with_a_missing_interpreter_says_so(real: RealPlaces, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/nonexistent/interpreter\n", encoding="ascii")
    script.chmod(0o755)
    containment = real.containment()
    service = Service("script", (str(script),))
    containment.prepare(service)
    child = real.launch(containment, service)
    process.release(child)
    assert select.select([child.error_fd], [], [], PATIENCE)[0]
    assert "interpreter" in str(process.read_error(child.error_fd))
    os.close(child.error_fd)
    os.close(child.pidfd)


def test_the_notify_socket_and_watchdog_reach_the_program() -> None:
    service = Service("talker", ("/usr/bin/env",), env=(("NOTIFY_SOCKET", "/mistaken"),))
    service = service._replace(health=Health(kind="sd_notify", interval=2.5))
    reader, writer = os.pipe()
    child = process.launch(service, entry_fd=-1, stdout=writer, notify_path="/run/x/notify")
    os.close(writer)
    process.release(child)
    lines = os.read(reader, 65536).decode().splitlines()
    os.waitpid(child.pid, 0)
    assert "NOTIFY_SOCKET=/run/x/notify" in lines
    assert "WATCHDOG_USEC=2500000" in lines
    assert not any(line.startswith("EDGE_AGENT") for line in lines)
    for fd in (reader, child.error_fd, child.pidfd):
        os.close(fd)


def test_fork_failure_is_a_sentence_and_leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(process.LaunchError, match=r"cannot fork for x: .*; fix: .*TasksMax"):
        process.launch(Service("x", SLEEP), entry_fd=-1, stdout=1)
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_identity_is_pid_and_start_time() -> None:
    pid = os.getpid()
    started = process.start_time(pid)
    assert started is not None
    assert process.same_process(pid, started)
    assert not process.same_process(pid, started + 1)
    assert process.open_pidfd(pid, started + 1) == -1
    fd = process.open_pidfd(pid, started)
    assert fd >= 0
    os.close(fd)
    assert process.start_time(4194304) is None
    assert process.open_pidfd(4194304, 1) == -1
    assert process.reap(1) is None


def test_a_zombie_is_not_the_same_process_any_more() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    assert wait_until(lambda: (process.read_stat(pid) or [b""])[0] == b"Z")
    started = process.start_time(pid)
    assert started is not None
    assert not process.same_process(pid, started)
    assert process.reap(pid) == 3
    assert process.reap(pid) is None


def test_names_with_parentheses_and_spaces_do_not_confuse(tmp_path: Path) -> None:
    folder = tmp_path / "42"
    folder.mkdir()
    stat = "42 (a) b (c)) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1000 200 18446744073709551615"
    (folder / "stat").write_text(stat, encoding="ascii")
    fields = process.read_stat(42, str(tmp_path))
    assert fields is not None
    assert fields[:4] == [b"S", b"7", b"8", b"9"]
    assert process.start_time(42, str(tmp_path)) == 123456


def test_twenty_launches_are_quick() -> None:
    """A guard against a launch that waits for its child, not a benchmark: those are in benchmarks/."""
    null = os.open(os.devnull, os.O_RDWR)
    start = time.monotonic()
    children = [process.launch(Service(f"s{n}", SLEEP), entry_fd=-1, stdout=null) for n in range(20)]
    for child in children:
        process.release(child)
    took = time.monotonic() - start
    for child in children:
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        os.close(child.error_fd)
        os.close(child.pidfd)
    os.close(null)
    assert took < 2.0


def test_the_next_agent_can_own_a_child_that_has_not_executed_yet(real: RealPlaces) -> None:
    """The agent died after the release, before execve or even before the child joined: its identity is on record."""
    first = real.containment()
    service = Service("young", SLEEP)
    first.prepare(service)
    child = real.launch(first, service)
    second = real.containment()
    second.track("young", child.pid, child.started)
    assert second.owns("young", child.pid)
    assert second.populated("young")
    assert second.members("young") == [child.pid]
    process.release(child)
    assert select.select([child.error_fd], [], [], PATIENCE)[0]
    assert process.read_error(child.error_fd) == ""
    assert second.members("young") == [child.pid]
    third = real.containment()
    third.track("young", child.pid, child.started + 1)
    second.kill("young")
    assert select.select([child.pidfd], [], [], PATIENCE)[0]
    assert process.reap(child.pid) == -signal.SIGKILL
    assert not second.owns("young", child.pid)
    assert not third.populated("young")
    os.close(child.error_fd)
    os.close(child.pidfd)
