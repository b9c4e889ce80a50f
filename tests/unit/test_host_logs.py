"""Logs of services: bounds, cursors, restarts of the agent, floods, and a journal that is or is not there."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.host.logs import BURST, CHUNK, INTERVAL, LogSink
from edge_agent.host.loop import Loop
from edge_agent.host.segments import Segments
from edge_agent.model import Log, Service


class Clock:
    """Time that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A loop, its clock and the directories."""

    def __init__(self, tmp: Path) -> None:
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.folder, self.disk = tmp / "run", tmp / "log"
        self.journal = tmp / "journal"
        self.sinks: list[LogSink] = []

    def sink(self, kind: str = "memory", max_bytes: int = 64 * 1024) -> LogSink:
        service = Service("web", ("/bin/true",), log=Log(kind, max_bytes))
        sink = LogSink(self.loop, service, str(self.folder), str(self.disk), str(self.journal))
        self.sinks.append(sink)
        return sink

    def turn(self) -> None:
        self.loop.turn(0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for sink in made.sinks:
        sink.close()


def test_output_arrives_with_a_cursor(bench: Bench) -> None:
    sink = bench.sink()
    told: list[int] = []
    sink.on_data = lambda: told.append(sink.end)
    writer = sink.open_writer()
    assert stat.S_ISFIFO(os.fstat(writer).st_mode)
    assert os.get_blocking(writer)
    os.write(writer, b"hello\n")
    bench.turn()
    assert told == [6]
    assert sink.read(0, 100) == (b"hello\n", 6)
    assert sink.read(6, 100) == (b"", 6)
    assert sink.read(-1, 3) == (b"lo\n", 6)
    os.close(writer)


def test_a_quiet_service_costs_nothing_even_when_it_has_ended(bench: Bench) -> None:
    sink = bench.sink()
    writer = sink.open_writer()
    os.write(writer, b"bye\n")
    os.close(writer)
    bench.turn()
    assert bench.loop._epoll.poll(0) == [], "a hang-up would wake the agent for ever"
    assert bench.loop._timeout(None) is None, "no timer is left"
    assert sink.read(0, 10)[0] == b"bye\n"


def test_what_was_written_while_no_agent_ran_is_read_by_the_next(bench: Bench) -> None:
    first = bench.sink()
    writer = first.open_writer()
    os.write(writer, b"one\n")
    first.close()
    os.write(writer, b"two\n")  # no SIGPIPE, nothing lost
    second = bench.sink()
    bench.turn()
    assert second.read(0, 100) == (b"one\ntwo\n", 8)
    os.close(writer)


def test_a_flood_is_read_at_intervals(bench: Bench) -> None:
    sink = bench.sink(max_bytes=1 << 20)
    writer = sink.open_writer()
    os.set_blocking(writer, False)
    block = bytes(CHUNK)
    written = 0
    for _ in range(1000):  # one second in thousandths
        with contextlib.suppress(BlockingIOError):
            written += os.write(writer, block)
        bench.turn()
        bench.clock.now += 0.001
    assert written <= (BURST + 1 / INTERVAL + 2) * CHUNK
    assert written >= (1 / INTERVAL - 2) * CHUNK
    for _ in range(4):
        bench.clock.now += INTERVAL
        bench.turn()
    assert bench.loop._timeout(None) is None, "calm again: no timer"
    os.write(writer, b"line\n")
    bench.turn()
    assert sink.read(-1, 5)[0] == b"line\n"
    os.close(writer)


def test_the_bound_holds_and_old_cursors_start_at_the_oldest(bench: Bench) -> None:
    sink = bench.sink(max_bytes=16 * 1024)
    writer = sink.open_writer()
    for number in range(100):
        os.write(writer, f"{number:04}".encode() * 256)
        bench.clock.now += 2
        bench.turn()
    size = sum(path.stat().st_size for path in bench.folder.glob("web.log*") if path.suffix != ".start")
    assert 8 * 1024 <= size <= 16 * 1024
    data, cursor = sink.read(0, 1 << 20)
    assert cursor == sink.end == 100 * 1024
    assert data.endswith(b"0099")
    assert len(data) == size
    assert sink.read(cursor - 1024, 4)[0] == b"0099"
    assert sink.read(10**9, 1 << 20) == (data, cursor), "a cursor of another life"
    os.close(writer)


def test_cursors_survive_the_agent(bench: Bench) -> None:
    sink = bench.sink(max_bytes=16 * 1024)
    writer = sink.open_writer()
    for _ in range(30):
        os.write(writer, b"x" * 1023 + b"\n")
        bench.clock.now += 2
        bench.turn()
    end = sink.end
    sink.close()
    again = bench.sink(max_bytes=16 * 1024)
    assert again.end == end == 30 * 1024
    os.write(writer, b"next\n")
    bench.turn()
    assert again.read(end, 100) == (b"next\n", end + 5)
    os.close(writer)


def test_on_disk_the_log_is_in_the_log_directory(bench: Bench) -> None:
    sink = bench.sink("disk")
    writer = sink.open_writer()
    os.write(writer, b"kept\n")
    bench.turn()
    assert (bench.disk / "web.log").read_bytes() == b"kept\n"
    assert (bench.disk / "web.log").stat().st_mode & 0o777 == 0o640
    assert not (bench.folder / "web.log").exists()
    os.close(writer)


def test_nowhere_is_nowhere(bench: Bench) -> None:
    sink = bench.sink("none")
    writer = sink.open_writer()
    assert Path(f"/proc/self/fd/{writer}").readlink() == Path("/dev/null")
    assert not bench.folder.exists()
    assert sink.read(0, 10) == (b"", 0)
    os.close(writer)


def test_the_journal_gets_the_stream_with_its_header(bench: Bench) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(bench.journal))
        server.listen()
        sink = bench.sink("journal")
        assert sink.kind == "journal"
        assert sink.reason == ""
        writer = sink.open_writer()
        connection, _ = server.accept()
        os.write(writer, b"a line\n")
        os.close(writer)
        received = b""
        while part := connection.recv(4096):
            received += part
        connection.close()
    # Identifier, unit, priority info, level prefixes, and forwarding to syslog, kmsg and console.
    assert received == b"web\n\n6\n1\n0\n0\n0\na line\n"


@pytest.mark.parametrize("state", ["absent", "refusing"])
def test_without_a_journal_memory_serves_and_it_is_said(bench: Bench, state: str) -> None:
    if state == "refusing":
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.bind(str(bench.journal))  # and nobody listens
    sink = bench.sink("journal")
    writer = sink.open_writer()
    assert sink.kind == "memory"
    assert "journal" in sink.reason
    assert "memory" in sink.reason
    os.write(writer, b"here\n")
    bench.turn()
    assert sink.read(0, 10)[0] == b"here\n"
    os.close(writer)


def test_a_symlink_or_file_in_the_pipes_place_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    bench.folder.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("precious", encoding="ascii")
    (bench.folder / "output").symlink_to(victim)
    with pytest.raises(OSError, match="output"):
        bench.sink()
    assert victim.read_text(encoding="ascii") == "precious"
    (bench.folder / "output").unlink()
    (bench.folder / "output").write_text("a file", encoding="ascii")
    assert stat.S_ISFIFO(os.fstat(bench.sink().open_writer()).st_mode)


def test_a_full_file_system_costs_output_and_nothing_else(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = bench.sink()
    writer = sink.open_writer()
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if fd != writer:
            raise OSError(28, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(os, "write", full)
    os.write(writer, b"lost\n")
    bench.turn()
    monkeypatch.undo()
    assert sink.lost == 5
    os.write(writer, b"kept\n")
    bench.clock.now += 2
    bench.turn()
    assert sink.read(0, 100) == (b"kept\n", 5)
    os.close(writer)


@settings(deadline=None)
@given(pieces=st.lists(st.integers(1, 9000), max_size=20), crash_at=st.integers(0, 60))
def test_a_crash_at_any_step_of_a_rotation_keeps_offsets(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[int], crash_at: int
) -> None:
    """The agent dies between any two file operations; what the next one reads is what was appended at that offset."""
    path = str(tmp_path_factory.mktemp("segments") / "s.log")
    countdown = [crash_at]

    class CrashError(BaseException):
        pass

    def crashing(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **keywords: object) -> object:
            countdown[0] -= 1
            if countdown[0] < 0:
                raise CrashError
            return call(*args, **keywords)

        return wrapped

    stream = bytes((n // 7 + n) % 251 for n in range(sum(pieces)))
    log = Segments(path, 16384)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("rename", "open", "write"):
            patch.setattr(os, name, crashing(getattr(os, name)))
        done = 0
        with contextlib.suppress(CrashError):
            for piece in pieces:
                log.append(stream[done : done + piece])
                done += piece
    log.close()
    after = Segments(path, 16384)
    data, cursor = after.read(0, 1 << 20)
    assert cursor == after.end
    assert data == stream[cursor - len(data) : cursor]
    assert cursor <= sum(pieces)
    assert cursor >= done
    after.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.mark.parametrize("place", ["output", "web.log"])
def test_a_log_that_cannot_be_opened_leaves_no_descriptor(bench: Bench, place: str) -> None:
    before = descriptors()
    (bench.folder / place / "x").mkdir(parents=True)  # in the place of the pipe or the log, and not to be removed
    with pytest.raises(OSError, match="directory"):
        bench.sink()
    assert descriptors() == before


def test_a_note_that_cannot_be_written_does_not_keep_a_log_from_opening(bench: Bench) -> None:
    (bench.folder / "web.log.start~").mkdir(parents=True)
    sink = bench.sink()
    os.close(sink.open_writer())
    assert sink.kind == "memory"


def test_a_log_that_could_not_take_the_journals_place_does_so_at_the_next_start(bench: Bench) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.bind(str(bench.journal))  # and does not listen
        sink = bench.sink("journal")
        (bench.folder / "web.log").mkdir(parents=True)
        with pytest.raises(OSError, match="directory"):
            sink.open_writer()
        (bench.folder / "web.log").rmdir()
        writer = sink.open_writer()
    os.write(writer, b"hello")
    os.close(writer)
    bench.turn()
    assert sink.read(0, 100) == (b"hello", 5)
    assert "refused" in sink.reason
