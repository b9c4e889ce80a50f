"""Health checks and sd_notify: real sockets on the loopback, real programs, time by hand where it counts."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.host import checks, notify
from edge_agent.host.checks import judge_status
from edge_agent.host.loop import Loop
from edge_agent.host.notify import NotifySocket
from edge_agent.host.probes import FIRST, Prober
from edge_agent.host.tree import TreeContainment
from edge_agent.model import Event, Health, Ready, Service, Unhealthy

PATIENCE = 20.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A prober with a loop; ``events`` is what it emitted."""

    def __init__(self, tmp: Path, now: Callable[[], float] = time.monotonic) -> None:
        self.loop = Loop(now)
        self.containment = TreeContainment(str(tmp), "none")
        self.events: list[Event] = []
        self.prober = Prober(self.loop, self.containment, self.events.append)

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, "it does not come"
            self.loop.turn(0.05)

    def idle(self) -> bool:
        return self.loop._timeout(None) is None and not self.loop._calls


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        made.settimeout(PATIENCE)
        yield made


def _service(kind: str, port: int = 0, **health: object) -> Service:
    made = Health(kind=kind, port=port, interval=0, timeout=5.0)._replace(**health)  # type: ignore[arg-type]
    return Service("web", ("/bin/sleep", "1"), health=made)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def _answer(server: socket.socket, data: bytes, seen: list[bytes]) -> threading.Thread:
    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            seen.append(connection.recv(4096))
            connection.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


class TestConnect:
    def test_tcp_is_ready_once_something_listens(self, bench: Bench) -> None:
        port = _free_port()
        bench.prober.start(_service("tcp", port), ready=False)
        bench.loop.turn(0.2)
        bench.loop.turn(0.2)
        assert bench.events == []
        with socket.socket() as late:
            late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            late.bind(("127.0.0.1", port))
            late.listen()
            bench.until(lambda: bench.events)
        assert bench.events == [Ready("web")]
        assert bench.idle(), "interval 0: never again, and nothing left open"

    def test_ipv6(self, bench: Bench) -> None:
        try:
            made = socket.create_server(("::1", 0), family=socket.AF_INET6)
        except OSError:
            pytest.skip("no IPv6 on the loopback")
        with made:
            bench.prober.start(_service("tcp", made.getsockname()[1], host="::1"), ready=False)
            bench.until(lambda: bench.events)

    def test_http(self, bench: Bench, server: socket.socket) -> None:
        seen: list[bytes] = []
        thread = _answer(server, b"HTTP/1.1 204 No Content\r\n\r\n", seen)
        port = server.getsockname()[1]
        bench.prober.start(_service("http", port, path="/healthz?full=1"), ready=False)
        bench.until(lambda: bench.events)
        thread.join()
        assert bench.events == [Ready("web")]
        assert seen[0].startswith(b"GET /healthz?full=1 HTTP/1.0\r\nHost: 127.0.0.1:%d\r\n" % port)
        assert seen[0].endswith(b"\r\n\r\n")
        assert bench.idle()

    def test_http_in_pieces(self, bench: Bench, server: socket.socket) -> None:
        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                for piece in (b"HTT", b"P/1.0 2", b"00 OK\r", b"\n"):
                    connection.sendall(piece)
                    time.sleep(0.01)

        thread = threading.Thread(target=serve)
        thread.start()
        bench.prober.start(_service("http", server.getsockname()[1]), ready=False)
        bench.until(lambda: bench.events)
        thread.join()
        assert bench.events == [Ready("web")]

    def test_unhealthy_after_failures_in_a_row_with_the_reason(self, bench: Bench) -> None:
        port = _free_port()
        bench.prober.start(_service("tcp", port, interval=0.02, failures=3), ready=True)
        bench.until(lambda: bench.events)
        assert bench.events == [
            Unhealthy("web", f"health check: cannot connect to 127.0.0.1:{port}: Connection refused, 3 times in a row")
        ]
        bench.prober.stop("web")
        assert bench.idle()

    def test_a_server_that_says_nothing_is_late(self, bench: Bench, server: socket.socket) -> None:
        port = server.getsockname()[1]
        bench.prober.start(_service("http", port, interval=0.02, failures=1, timeout=0.05), ready=True)
        bench.until(lambda: bench.events)
        assert bench.events == [Unhealthy("web", "health check: no answer within 0.05 s")]
        bench.prober.stop("web")
        assert bench.idle()

    def test_a_name_is_not_looked_up(self, bench: Bench) -> None:
        bench.prober.start(_service("tcp", 80, host="db.example", interval=0.01, failures=1), ready=True)
        bench.until(lambda: bench.events)
        event = bench.events[0]
        assert isinstance(event, Unhealthy)
        assert "not an IP address; fix: " in event.reason
        bench.prober.stop("web")

    def test_a_port_connected_to_itself_is_refused(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Linux does that on the loopback when the port sought is also the ephemeral port it picks."""

        def to_itself(host: str, port: int) -> socket.socket:
            made = socket.socket()
            made.bind((host, port))
            made.connect((host, port))
            made.setblocking(False)
            assert made.getsockname() == made.getpeername()
            return made

        monkeypatch.setattr(checks, "_connect", to_itself)
        bench.prober.start(_service("tcp", _free_port(), interval=0.01, failures=1), ready=True)
        bench.until(lambda: bench.events)
        event = bench.events[0]
        assert isinstance(event, Unhealthy)
        assert "refused" in event.reason
        bench.prober.stop("web")


class TestExec:
    def test_exit_code_zero_is_ready(self, bench: Bench) -> None:
        bench.prober.start(_service("exec", argv=("/bin/true",)), ready=False)
        bench.until(lambda: bench.events)
        assert bench.events == [Ready("web")]
        assert bench.idle()

    @pytest.mark.parametrize(
        ("argv", "reason"),
        [
            (("/bin/false",), "/bin/false: exit code 1"),
            (("/bin/sh", "-c", "kill -TERM $$"), "/bin/sh: signal 15"),
            (("/nonexistent",), "cannot execute /nonexistent: No such file or directory; fix: "),
        ],
    )
    def test_failures_say_why(self, bench: Bench, argv: tuple[str, ...], reason: str) -> None:
        bench.prober.start(_service("exec", argv=argv, interval=0.01, failures=1), ready=True)
        bench.until(lambda: bench.events)
        event = bench.events[0]
        assert isinstance(event, Unhealthy)
        assert reason in event.reason
        bench.prober.stop("web")

    def test_too_late_is_killed_with_all_it_started(self, bench: Bench, tmp_path: Path) -> None:
        note = tmp_path / "pids"
        script = f"sleep 1000 & echo $$ $! > {note}.new; mv {note}.new {note}; wait"
        service = _service("exec", argv=("/bin/sh", "-c", script), interval=0.01, failures=1, timeout=0.5)
        bench.prober.start(service, ready=True)
        bench.until(lambda: bench.events)
        bench.prober.stop("web")
        bench.until(bench.idle)
        assert note.exists()
        for pid in note.read_text(encoding="ascii").split():
            stat = Path(f"/proc/{pid}/stat")
            bench.until(lambda stat=stat: not stat.exists() or ") Z" in stat.read_text(encoding="ascii"))  # type: ignore[misc]
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    def test_it_runs_inside_the_containment(self, bench: Bench, tmp_path: Path) -> None:
        note = tmp_path / "environment"
        argv = ("/bin/sh", "-c", f"env > {note}.new; mv {note}.new {note}")
        bench.prober.start(_service("exec", argv=argv), ready=False)
        bench.until(lambda: bench.events)
        assert f"EDGE_AGENT_UNIT={tmp_path}:web\n" in note.read_text(encoding="utf-8")


class TestPace:
    """Time by hand."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    def _attempts(self, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: Service) -> list[float]:
        bench = Bench(tmp_path, clock)
        attempts: list[float] = []

        def refuse(*_: object) -> None:
            attempts.append(round(clock.now - 1000.0, 3))
            raise OSError(111, "Connection refused")

        monkeypatch.setattr(checks, "start", refuse)
        bench.prober.start(service, ready=False)
        while clock.now < 1010.0:
            clock.now += 0.01
            bench.loop.turn(0)
        assert bench.events == [], "not ready yet is not unhealthy"
        return attempts

    def test_early_and_then_slower(self, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        attempts = self._attempts(clock, tmp_path, monkeypatch, _service("tcp", 1, interval=30.0))
        assert attempts[0] == pytest.approx(FIRST, abs=0.011)
        pauses = [b - a for a, b in itertools.pairwise(attempts)]
        assert all(later >= earlier - 0.011 for earlier, later in itertools.pairwise(pauses))
        assert max(pauses) <= 1.02
        assert 13 <= len(attempts) <= 17

    def test_not_slower_than_the_interval(self, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        attempts = self._attempts(clock, tmp_path, monkeypatch, _service("tcp", 1, interval=0.2))
        pauses = [b - a for a, b in itertools.pairwise(attempts)]
        assert max(pauses) <= 0.22

    def test_ready_with_interval_zero_is_never_checked(self, clock: Clock, tmp_path: Path) -> None:
        bench = Bench(tmp_path, clock)
        bench.prober.start(_service("tcp", 1), ready=True)
        assert bench.idle()

    def test_without_a_health_check_there_is_nothing_to_do(self, clock: Clock, tmp_path: Path) -> None:
        bench = Bench(tmp_path, clock)
        bench.prober.start(Service("web", ("/bin/true",)), ready=False)
        bench.prober.stop("web")
        bench.prober.stop("nobody")
        assert bench.idle()

    def test_watchdog(self, clock: Clock, tmp_path: Path) -> None:
        bench = Bench(tmp_path, clock)
        bench.prober.start(_service("sd_notify", interval=2.0, failures=2), ready=False)
        assert bench.idle(), "the start time-out is the reconciler's"
        bench.prober.said("web", {"READY": "1", "STATUS": "up"})
        assert bench.events == [Ready("web")]
        assert bench.prober.statuses == {"web": "up"}
        for _ in range(10):
            clock.now += 3.0
            bench.prober.said("web", {"WATCHDOG": "1"})
            bench.loop.turn(0)
        assert bench.events == [Ready("web")]
        clock.now += 3.9
        bench.loop.turn(0)
        assert len(bench.events) == 1
        clock.now += 0.2
        bench.loop.turn(0)
        assert bench.events[1:] == [Unhealthy("web", "no WATCHDOG=1 for 4.1 s, expected every 2 s")]
        bench.prober.said("web", {"READY": "1"})
        assert len(bench.events) == 2, "ready is said once"
        bench.prober.said("web", {"STOPPING": "1"})
        clock.now += 100
        bench.loop.turn(0)
        assert len(bench.events) == 2

    def test_a_machine_that_stood_still_is_held_against_nobody_once(self, clock: Clock, tmp_path: Path) -> None:
        bench = Bench(tmp_path, clock)
        bench.prober.start(_service("sd_notify", interval=2.0, failures=2), ready=True)
        clock.now += 60.0
        bench.loop.turn(0)
        assert bench.events == []
        bench.prober.said("web", {"WATCHDOG": "1"})  # it runs again, and so do we
        clock.now += 2.0
        bench.loop.turn(0)
        clock.now += 60.0
        bench.loop.turn(0)
        assert bench.events == []
        clock.now += 60.0  # silent all the while: an agent that is always late must see it as well
        bench.loop.turn(0)
        assert bench.events == [Unhealthy("web", "no WATCHDOG=1 for 122.0 s, expected every 2 s")]

    def test_a_check_that_a_stall_has_cut_short_is_made_again(
        self, clock: Clock, tmp_path: Path, server: socket.socket
    ) -> None:
        bench = Bench(tmp_path, clock)
        port = server.getsockname()[1]
        bench.prober.start(_service("http", port, interval=5.0, timeout=1.0, failures=1), ready=True)
        clock.now += 5.0
        bench.loop.turn(0)  # asks
        clock.now += 30.0
        bench.loop.turn(0)
        assert bench.events == []
        clock.now += 1.1
        bench.loop.turn(0)
        assert bench.events == [Unhealthy("web", "health check: no answer within 1 s")]

    def test_ready_said_before_the_watch_began_counts(self, clock: Clock, tmp_path: Path) -> None:
        bench = Bench(tmp_path, clock)
        bench.prober.said("web", {"READY": "1"})
        bench.prober.start(_service("sd_notify"), ready=False)
        assert bench.events == [], "never from within start"
        bench.loop.turn(0)
        assert bench.events == [Ready("web")]
        bench.prober.stop("web")
        bench.prober.said("web", {"READY": "1"})
        bench.prober.stop("web")
        bench.prober.start(_service("sd_notify"), ready=False)
        bench.loop.turn(0)
        assert bench.events == [Ready("web")], "what the last generation said is forgotten"


class TestStatusLine:
    @pytest.mark.parametrize("line", [b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 301 x\r\nLocation: y", b"HTTP/1.1 399\n"])
    def test_healthy(self, line: bytes) -> None:
        assert judge_status("x", line) == ""

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (b"HTTP/1.1 503 Service Unavailable\r\n", "x answers HTTP status 503"),
            (b"HTTP/1.1 199 x\r\n", "x answers HTTP status 199"),
            (b"", "x closed the connection without an answer"),
            (b"SSH-2.0-OpenSSH\r\n", "x does not speak HTTP: 'SSH-2.0-OpenSSH'"),
            (b"HTTP/1.1 2x0 OK\r\n", "x does not speak HTTP: 'HTTP/1.1 2x0 OK'"),
        ],
    )
    def test_not(self, line: bytes, reason: str) -> None:
        assert judge_status("x", line) == reason

    @given(st.binary(max_size=1024))
    def test_hostile_answers_are_one_short_printable_line(self, data: bytes) -> None:
        reason = judge_status("x", data)
        assert reason.isprintable()
        assert len(reason) < 600


SEND = """
import os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.sendto(sys.argv[1].encode(), os.environ["NOTIFY_SOCKET"])
"""


class Words:
    """A listener, and a containment in which only ``inside`` is."""

    def __init__(self, inside: int) -> None:
        self.inside = inside
        self.heard: list[tuple[str, dict[str, str]]] = []

    def said(self, name: str, words: dict[str, str]) -> None:
        self.heard.append((name, words))

    def owns(self, name: str, pid: int) -> bool:
        return name == "web" and pid == self.inside


class TestNotify:
    @pytest.fixture
    def words(self) -> Words:
        return Words(os.getpid())

    @pytest.fixture
    def notify_socket(self, words: Words, tmp_path: Path) -> Iterator[NotifySocket]:
        loop = Loop()
        made = NotifySocket(loop, str(tmp_path / "notify"), Service("web", ("/x",)), words, words)  # type: ignore[arg-type]
        yield made
        made.close()

    def _send(self, made: NotifySocket, data: bytes, fds: tuple[int, ...] = ()) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(made.path)
            if fds:
                socket.send_fds(sender, [data], list(fds))
            else:
                sender.send(data)

    def test_what_a_member_says_is_heard(self, notify_socket: NotifySocket, words: Words) -> None:
        self._send(notify_socket, b"READY=1\nSTATUS=Serving 7 clients\nMAINPID=1\nX_FOO=bar")
        notify_socket._loop.turn(1)
        assert words.heard == [("web", {"READY": "1", "STATUS": "Serving 7 clients"})]

    def test_what_a_stranger_says_is_not(self, notify_socket: NotifySocket, words: Words) -> None:
        words.inside = 1
        self._send(notify_socket, b"READY=1")
        notify_socket._loop.turn(1)
        assert words.heard == []

    def test_descriptors_sent_along_are_closed(self, notify_socket: NotifySocket, words: Words) -> None:
        reader, writer = os.pipe()
        self._send(notify_socket, b"BARRIER=1", (writer,) * 10)
        os.close(writer)
        notify_socket._loop.turn(1)
        assert os.read(reader, 1) == b"", "somebody still holds it: sd_notify_barrier(3) would wait"
        os.close(reader)
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            self._send(notify_socket, b"READY=1", (0,) * 200)
            notify_socket._loop.turn(1)
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    def test_hostile_datagrams(self, notify_socket: NotifySocket, words: Words) -> None:
        for data in (b"", b"\0" * 100, b"READY=1" + b"x" * 8000, b"=\n=\n", b"STATUS=\x1b[2J\xff\xfe", b"\xff=1"):
            self._send(notify_socket, data)
            notify_socket._loop.turn(1)
        assert words.heard == [("web", {"STATUS": "?[2J\ufffd\ufffd"})]

    def test_a_flood_is_taken_in_batches(self, notify_socket: NotifySocket, words: Words) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.connect(notify_socket.path)
            sent = 0
            while sent < 100:
                try:
                    sender.send(b"WATCHDOG=1")
                except BlockingIOError:
                    break
                sent += 1
        notify_socket._loop.turn(1)
        assert len(words.heard) <= notify.BATCH

    def test_permissions_and_going_away(self, notify_socket: NotifySocket) -> None:
        path = Path(notify_socket.path)
        assert path.stat().st_mode & 0o777 == 0o600
        notify_socket.close()
        notify_socket.close()
        assert not path.exists()

    def test_the_next_agent_binds_the_same_path(self, notify_socket: NotifySocket, words: Words) -> None:
        again = NotifySocket(notify_socket._loop, notify_socket.path, Service("web", ("/x",)), words, words)  # type: ignore[arg-type]
        self._send(again, b"READY=1")
        notify_socket._loop.turn(1)
        assert len(words.heard) == 1
        again.close()

    def test_a_real_program_in_a_real_containment(self, bench: Bench, tmp_path: Path) -> None:
        from edge_agent.host import process

        service = Service("web", (sys.executable, "-S", "-c", SEND + "sys.stdin.read()\n", "READY=1"))
        service = service._replace(health=Health(kind="sd_notify", interval=0))
        path = str(tmp_path / "socket")
        made = NotifySocket(bench.loop, path, service, bench.containment, bench.prober)
        bench.containment.prepare(service)
        program = (*service.argv[:3], SEND + "import time; time.sleep(1000)\n", "READY=1")
        null = os.open(os.devnull, os.O_RDWR)
        marker = bench.containment.marker("web")
        child = process.launch(
            service._replace(argv=program), entry_fd=-1, stdout=null, env_extra=marker, notify_path=path
        )
        bench.containment.track("web", child.pid, child.started)
        bench.prober.start(service, ready=False)
        assert process.release(child)
        bench.until(lambda: bench.events)
        assert bench.events == [Ready("web")]
        bench.containment.kill("web")
        os.waitpid(child.pid, 0)
        for fd in (null, child.pidfd, child.error_fd):
            os.close(fd)
        made.close()


@given(st.binary(max_size=4096))
def test_parsing_takes_anything(data: bytes) -> None:
    for key, value in notify.parse(data).items():
        assert key in notify.KNOWN
        assert value.isprintable()
        assert len(value) <= notify.STATUS_BYTES
