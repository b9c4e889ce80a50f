"""The governor on a real kernel: pressure in, holds on the right services, everything given back."""

from __future__ import annotations

import contextlib
import subprocess
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import codec
from edge_agent import model as m
from edge_agent.cli.resident import command
from tests.node import harness
from tests.node.harness import Node, until

from .cgroups import Cgroup

MIB = 1 << 20
PATIENCE = 90.0  # seconds; the kernel is emulated and its host may be busy


@pytest.fixture
def node() -> Iterator[Node]:
    yield from harness.node()


@pytest.fixture
def zram() -> Iterator[None]:
    """Swap in compressed memory, as Raspberry Pi OS has it."""
    subprocess.run(["modprobe", "zram"], check=True)
    device = Path("/dev/zram0")
    Path("/sys/block/zram0/disksize").write_text("256M")
    subprocess.run(["mkswap", "--quiet", device], check=True)
    subprocess.run(["swapon", device], check=True)
    yield
    subprocess.run(["swapoff", device], check=True)
    subprocess.run(["rmmod", "zram"], check=True)


def python(program: str) -> str:
    """A command that runs lines of Python."""
    return f'[/usr/bin/python3, -S, -c, "{program.strip()}", MARK]'.replace("\n", "\\n")


def answering(work: Path) -> str:
    """While a file is there it is busy for a fifth of the time, in short bursts, as a server is."""
    return python(f"""
import os, time
while 1:
 if not os.path.exists('{work}'): time.sleep(0.5)
 time.sleep(0.02)
 end = time.thread_time() + 0.005
 while time.thread_time() < end: pass
""")


def writing(work: Path, size: int) -> str:
    """While a file is there it writes so many bytes again and again, and waits until they are on the disk."""
    return python(f"""
import os, time
fd = os.open('written', os.O_WRONLY | os.O_CREAT)
block = bytes({size})
while 1:
 if not os.path.exists('{work}'): time.sleep(0.5)
 else: os.pwrite(fd, block, 0), os.fdatasync(fd)
""")


def touching(mib: int) -> str:
    """Holds so many MiB and uses them twenty times a second."""
    return python(f"""
import time
x = bytearray({mib}<<20)
while 1:
 for i in range(0, len(x), 4096): x[i] = 1
 time.sleep(0.05)
""")


def leaking(calm: Path, most: int = 1000) -> str:
    """Takes more and more, incompressible and all of it in use, until a file is there or it has ``most`` MiB."""
    return python(f"""
import os, time
x = []
while not os.path.exists('{calm}'):
 if len(x) < {most}: x.append(bytearray(os.urandom(1<<20)))
 for b in x:
  for i in range(0, len(b), 4096): b[i] += 1 - b[i] // 255 * 255
time.sleep(1000)
""")


def event(node: Node, kind: str, service: str, text: str = "", *, after: int = 0) -> dict[str, Any]:
    """The first such event after one, waited for without asking again and again: that would be load of its own."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer = node.call("events", cursor=after, service=service, wait=5.0)
        for found in answer["events"]:
            if found["kind"] == kind and text in found["text"]:
                entry: dict[str, Any] = found
                return entry
        after = answer["cursor"]
    raise AssertionError(f"{service} was not {kind}: {[(e['kind'], e['service'], e['text']) for e in node.events()]}")


def read(path: Path) -> str:
    return path.read_text().split()[0]


def test_a_leak_is_shed_an_essential_untouched_and_it_returns_by_the_next_agent(node: Node) -> None:
    """Without swap there is no pressure before the kernel's kill: that is what keeps it away then."""
    calm = node.root / "calm"
    node.start(
        "--config",
        node.profile(f"""
            deployment: {{resources: {{total_memory: 160MiB}}}}
            services:
              essential:
                command: {touching(30)}
                importance: essential
                resources: {{memory: {{request: 50MiB, limit: 60MiB}}}}
              leak:
                command: {leaking(calm)}
                importance: heavy
                resources: {{memory: {{request: 10MiB, limit: 150MiB}}}}
        """),
    )
    before, top = node.pids()["essential"], node.services_cgroup()
    shed = event(node, "shed", "leak")
    assert "MiB" in shed["text"]
    calm.touch()
    until(lambda: node.states()["leak"] == "off", "it has gone", PATIENCE)
    node.kill()
    node.start()
    assert node.states()["leak"] == "off", "the next agent keeps it away"
    returned = event(node, "returns", "leak", after=shed["seq"])
    assert "free" in returned["text"]
    node.until_state("ready", "leak", patience=PATIENCE)
    assert node.pids()["essential"] == before
    events = dict(line.split() for line in (top / "essential/memory.events").read_text().splitlines())
    assert events["oom_kill"] == "0"


def leak_beside_an_essential(node: Node) -> Path:
    """Start them; a file by which the leak ends."""
    calm = node.root / "calm"
    node.start(
        "--config",
        node.profile(f"""
            deployment: {{resources: {{total_memory: 120MiB}}}}
            services:
              essential:
                command: {touching(60)}
                importance: essential
                resources: {{memory: {{request: 70MiB, limit: 80MiB}}, swap: 0}}
              leak:
                command: {leaking(calm)}
                importance: heavy
                resources: {{memory: {{request: 10MiB, limit: 110MiB}}}}
        """),
    )
    return calm


def test_with_swap_it_is_held_to_its_request_and_given_back(node: Node, zram: None) -> None:
    calm = leak_beside_an_essential(node)
    pid, top = node.pids()["leak"], node.services_cgroup()
    squeezed = event(node, "squeezed", "leak", "memory")
    until(lambda: read(top / "leak/memory.high") == str(10 * MIB), "it is held", PATIENCE)
    calm.touch()
    event(node, "relaxed", "leak", "memory", after=squeezed["seq"])
    assert read(top / "leak/memory.high") == "max"
    assert node.pids()["leak"] == pid
    assert not node.events("squeezed", "essential") + node.events("shed")


def stalled(top: Path, name: str, go: Path, *, stall: bool) -> None:
    """Have an allocating service wait for memory, by a limit on a cgroup in its own: not its doing, as it seems. The
    kernel has it sleep the longer the further it is above: here some 30 ms for each 64 pages.
    """
    inner = top / name / "inner"
    if not inner.exists():
        inner.mkdir()
        for pid in (top / name / "cgroup.procs").read_text().split():
            (inner / "cgroup.procs").write_text(pid)
        (top / name / "cgroup.subtree_control").write_text("+memory")
        go.touch()
        until(lambda: int((inner / "memory.current").read_text()) > 20 * MIB, "it has memory there", PATIENCE)
    high = int((inner / "memory.current").read_text()) * 49 // 50 if stall else "max"
    (inner / "memory.high").write_text(str(high))


def allocating(go: Path) -> str:
    """Once a file is there it holds 24 MiB, and takes 512 KiB and gives them back all the time."""
    return python(f"""
import mmap, os, time
while not os.path.exists('{go}'): time.sleep(0.2)
x = bytearray(b'x') * (24<<20)
while 1:
 m = mmap.mmap(-1, 1<<19)
 m[::4096] = bytes(128)
 m.close()
""")


def test_under_pressure_it_is_frozen_first_and_the_next_agent_lets_go(node: Node) -> None:
    go = node.root / "go"
    node.start(
        "--config",
        node.profile(f"""
            deployment: {{resources: {{total_memory: 300MiB}}}}
            services:
              essential:
                command: {allocating(go)}
                importance: essential
                resources: {{memory: 50MiB, cpu: {{request: 0.5}}}}
              heavy:
                command: {touching(40)}
                importance: heavy
                freeze: true
                resources: {{memory: {{request: 10MiB, limit: 80MiB}}, cpu: {{request: 0.3}}}}
        """),
    )
    pid, top = node.pids()["heavy"], node.services_cgroup()
    stalled(top, "essential", go, stall=True)
    frozen = event(node, "frozen", "heavy")
    assert "%" in frozen["text"]
    stalled(top, "essential", go, stall=False)
    until(lambda: "frozen 1" in (top / "heavy/cgroup.events").read_text(), "it has stopped", PATIENCE)
    node.kill()
    node.start()
    until(lambda: "frozen 0" in (top / "heavy/cgroup.events").read_text(), "the next agent lets go", PATIENCE)
    stalled(top, "essential", go, stall=True)
    again = event(node, "frozen", "heavy", after=frozen["seq"])
    stalled(top, "essential", go, stall=False)
    event(node, "thawed", "heavy", after=again["seq"])
    until(lambda: "frozen 0" in (top / "heavy/cgroup.events").read_text(), "it goes on", PATIENCE)
    assert node.pids()["heavy"] == pid
    assert not node.events("shed")


def test_lent_cpu_is_called_back_for_an_essential_and_lent_again(node: Node) -> None:
    """Two processes on two processors use the total up in the first half of each period, and in the other half all
    wait, the essential too, which used less than its request: no weight helps against that."""
    works = node.root / "works"
    node.start(
        "--config",
        node.profile(f"""
            deployment: {{resources: {{total_memory: 200MiB, total_cpu: 1.0}}}}
            services:
              lender:
                command: {answering(works)}
                importance: essential
                resources: {{cpu: {{request: 0.6, limit: 1.0}}}}
              borrower:
                command: [/bin/sh, -c, 'while :; do :; done & while :; do :; done', MARK]
                importance: heavy
                resources: {{cpu: {{request: 0.2, limit: 1.0}}}}
        """),
    )
    quota = node.services_cgroup() / "borrower/cpu.max"
    if read(quota) != "100000":  # an essential waits as it starts, too
        event(node, "relaxed", "borrower")
    seen = node.events()[-1]["seq"]
    works.touch()
    began = time.monotonic()
    squeezed = event(node, "squeezed", "borrower", after=seen)
    print(f"\nthe lender has its request back after {time.monotonic() - began:.2f} s")
    assert "lender waits for cpu" in squeezed["text"]
    assert read(quota) != "100000"
    node.kill()
    node.start()
    again = event(node, "squeezed", "borrower", after=squeezed["seq"])
    assert "lender waits for cpu" in again["text"], "the next agent sees it by itself"
    node.kill()
    works.unlink()
    node.start()
    until(lambda: read(quota) == "100000", "the next agent gives back", PATIENCE)
    assert not node.events("squeezed", "lender")


def test_a_flood_of_the_disk_is_held_for_an_essential_that_waits(node: Node) -> None:
    writes, floods = node.root / "writes", node.root / "floods"
    node.start(
        "--config",
        node.profile(f"""
            deployment: {{resources: {{total_memory: 200MiB}}}}
            services:
              writer:
                command: {writing(writes, 4096)}
                importance: essential
                working_directory: {node.root}
                resources: {{cpu: {{request: 0.5}}}}
              flood:
                command: {writing(floods, 1 << 20)}
                importance: heavy
                working_directory: /var/tmp
                resources: {{cpu: {{request: 0.5}}}}
        """),
    )
    rates = node.services_cgroup() / "flood/io.max"
    floods.touch()
    writes.touch()
    held = event(node, "squeezed", "flood", "writer waits for io")
    until(lambda: "wbps=" in rates.read_text().replace("wbps=max", ""), "it is held", PATIENCE)
    node.kill()
    node.start()
    again = event(node, "squeezed", "flood", "writer waits for io", after=held["seq"])
    writes.unlink()
    eased = event(node, "relaxed", "flood", "are left to flood", after=again["seq"])
    assert "wbps=" in rates.read_text().replace("wbps=max", ""), "a flood that goes on is let go step by step"
    floods.unlink()
    event(node, "relaxed", "flood", "for io", after=eased["seq"])
    until(lambda: "wbps=" not in rates.read_text().replace("wbps=max", ""), "it has everything back", PATIENCE)
    assert not node.events("squeezed", "writer")


def test_killed_while_memory_is_squeezed_the_next_agent_gives_back(node: Node, zram: None) -> None:
    calm = leak_beside_an_essential(node)
    pid, high = node.pids()["leak"], node.services_cgroup() / "leak/memory.high"
    event(node, "squeezed", "leak", "memory")
    until(lambda: read(high) == str(10 * MIB), "it is held", PATIENCE)
    node.kill()
    calm.touch()
    node.start()
    until(lambda: read(high) == "max", "the next agent gives back", PATIENCE)
    assert node.pids()["leak"] == pid


def switches(pid: int) -> int:
    """Voluntary context switches: each is a wakeup that was waited for."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("voluntary_ctxt")))


def test_at_rest_the_governor_listens_and_nothing_wakes(node: Node) -> None:
    node.start(
        "--config",
        node.profile(f"""
            deployment: {{resources: {{total_memory: 200MiB}}}}
            services:
              web: {{command: [/bin/sleep, "{node.number}"], importance: essential, resources: {{memory: 20MiB}}}}
              batch: {{command: [/bin/sleep, "{node.number}"], importance: heavy, resources: {{memory: 20MiB}}}}
        """),
    )
    node.until_state("ready", patience=PATIENCE)
    status = node.status()
    assert status["enforcement"] == "cgroup2"
    agent = status["agent"]["pid"]
    opened = set()
    for entry in Path(f"/proc/{agent}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it closes the connection that asked for its status
            opened.add(entry.readlink().name)
    assert {"memory.pressure", "cpu.pressure", "io.pressure"} <= opened, "it does not listen"
    until(lambda: node.status()["governor"]["next"] is None, "it rests", PATIENCE)
    time.sleep(2)
    before = switches(agent)
    time.sleep(60)
    assert switches(agent) == before


WITHOUT = """
    import sys, types
    class Off:
        governor, next = types.SimpleNamespace(grips={}), None
        def __init__(self, *_): pass
        def __getattr__(self, name): return lambda *_, **__: 0
    for name in ("agent.governing", "host.senses", "governor", "lending", "grips", "looks"):
        module = sys.modules["edge_agent." + name] = types.ModuleType("edge_agent." + name)
        module.__getattr__ = lambda name: Off
    import edge_agent, edge_agent.host
    edge_agent.host.senses = sys.modules["edge_agent.host.senses"]
"""
"""The resident as it would be without the governor: nothing of it is loaded."""


def test_the_governor_adds_half_a_mebibyte_at_most(node: Node, cgroup: Cgroup) -> None:
    """Two agents of their own, one after the other, each at rest beside the same eight services."""
    limits = m.Limits(memory_request=4 << 20, memory_limit=64 << 20, cpu_request=50)
    services = tuple(
        m.Service(f"s{i}", ("/bin/sleep", node.number), importance=m.ESSENTIAL if i < 3 else m.HEAVY, limits=limits)
        for i in range(8)
    )
    plan = m.Plan("eight", "/nonexistent.yaml", 1 << 30, 2000, 16 << 20, 0, services, enforcement="cgroup2")
    path, off = node.root / "plan", textwrap.dedent(WITHOUT)
    path.write_bytes(codec.pack_plan(plan))
    found: dict[str, list[int]] = {"with": [], "without": []}
    for turn in range(4):
        kind = ("with", "without")[turn % 2]
        directories = ["--run-dir", node.run_dir, "--data-dir", node.data_dir, "--log-dir", node.log_dir]
        argv = command(["--plan", str(path), *map(str, directories), "--cgroup-path", str(cgroup.path)])
        if kind == "without":
            paths, _, main = argv[argv.index("-c") + 1].partition("; from")
            argv[argv.index("-c") + 1] = f"{paths}\n{off}\nfrom{main}"
        node._spawn(argv, cgroup.path)
        node.until_state("ready", patience=PATIENCE)
        time.sleep(3)
        assert node.process is not None
        lines = Path(f"/proc/{node.process.pid}/smaps_rollup").read_text().splitlines()[1:]
        found[kind].append(next(int(line.split()[1]) for line in lines if line.startswith("Pss:")))
        node.stop()
    print(f"\nresident PSS, KiB: {found}")
    assert min(found["with"]) - min(found["without"]) <= 512


def test_one_stuck_under_its_own_limit_is_restarted_and_nobody_else_pays(node: Node) -> None:
    """memory.high without swap: alive, never killed, nothing done."""
    go = node.root / "go"
    node.start(
        "--config",
        node.profile(f"""
            deployment: {{resources: {{total_memory: 400MiB}}}}
            services:
              stuck:
                command: {
            python(f'''
import os, time
while not os.path.exists('{go}'): time.sleep(0.2)
os.remove('{go}')
x = bytearray(b'x') * (60<<20)
time.sleep(1000)
''')
        }
                resources: {{memory: 100MiB}}
              borrower:
                command: {touching(40)}
                importance: heavy
                resources: {{memory: {{request: 10MiB, limit: 80MiB}}}}
        """),
    )
    top, pid = node.services_cgroup(), node.pids()["stuck"]
    node.until_state("ready", patience=PATIENCE)
    (top / "stuck/memory.high").write_text(str(20 * MIB))
    go.touch()
    until(lambda: node.pids().get("stuck", pid) != pid, "it was restarted", PATIENCE)
    assert "no progress" in str(node.events(service="stuck"))
    assert not [entry["text"] for kind in ("shed", "squeezed") for entry in node.events(kind)]
