"""kill -9 of the agent: the next one takes over what runs, restarts what died, and touches nobody else."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent import codec
from edge_agent import model as m
from edge_agent.host.process import start_time

from .harness import Node, alive, until, with_argument

TRIES = int(os.environ.get("EDGE_AGENT_TEST_KILLS", "200"))


def twenty(node: Node, enforcement: str) -> Path:
    services = tuple(
        m.Service(
            f"s{i:02}",
            ("/bin/sleep", node.number),
            restart=m.Restart(delay=0.2, factor=1.0, max_attempts=m.UNLIMITED),
            limits=m.Limits(memory_request=4 << 20, memory_limit=64 << 20),
            depends_on=(f"s{i - 5:02}",) if i >= 5 else (),
        )
        for i in range(20)
    )
    plan = m.Plan("twenty", "/nonexistent.yaml", 1 << 30, 2000, 16 << 20, 0, services, enforcement=enforcement)
    path = node.root / "plan"
    path.write_bytes(codec.pack_plan(plan))
    return path


def identities(node: Node) -> dict[str, tuple[int, int | None]]:
    return {name: (pid, start_time(pid)) for name, pid in node.pids().items()}


def test_killed_at_random_moments_it_restarts_nothing_doubles_nothing_orphans_nothing(node: Node) -> None:
    """TRIES times: kill -9 of the agent at a random moment, sometimes of services as well, sometimes while starting."""
    plan = twenty(node, "sampling")
    node.run_plan(plan)
    kill_again_and_again(node, lambda: node.run_plan(plan), TRIES)
    assert node.stop() == 0
    assert not with_argument(node.number)


def kill_again_and_again(node: Node, start: Callable[[], None], tries: int) -> None:
    """The body for every kind of containment; the agent runs already, and does at the end."""
    rng = random.Random(20)
    node.until_state("ready")
    for turn in range(tries):
        before = identities(node)
        victims: list[str] = []
        if rng.random() < 0.2:  # the agent dies while it is bringing services back
            victims = rng.sample(sorted(before), 3)
            for name in victims:
                os.kill(before[name][0], signal.SIGKILL)
        if rng.random() < 0.5:
            until_moment(rng.random() * 0.25)
        node.kill()
        if rng.random() < 0.3:  # and some die while no agent is there
            name = rng.choice(sorted(set(before) - set(victims)))
            os.kill(before[name][0], signal.SIGKILL)
            victims.append(name)
        start()
        node.until_state("ready")
        after = identities(node)
        assert len(after) == 20, turn
        for name, identity in before.items():
            if name not in victims:
                assert after[name] == identity, f"turn {turn}: {name} was restarted though it had not died"
        there, known = set(with_argument(node.number)), {pid for pid, _ in after.values()}
        assert there == known, f"turn {turn}: doubled or orphaned {there - known}, lost {known - there}"


def until_moment(seconds: float) -> None:
    time.sleep(seconds)  # a random moment is the point of it


def test_a_stranger_with_a_recycled_pid_is_not_adopted(node: Node) -> None:
    plan = twenty(node, "sampling")
    node.run_plan(plan)
    node.until_state("ready")
    pid = node.pids()["s19"]
    node.kill()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), "it is gone")
    with subprocess.Popen(["/bin/sleep", "1000"]) as stranger:
        try:
            path = node.run_dir / "services/s19/unit"
            boot, _, data = path.read_bytes().partition(b"\n")
            unit = codec.unpack(data, "Unit")
            # The worst case: pid and start time both fit, as after a reboot of the clock or a copied directory.
            forged = unit._replace(pid=stranger.pid, started=start_time(stranger.pid) or 0)
            path.write_bytes(boot + b"\n" + codec.pack(forged))
            node.run_plan(plan)
            node.until_state("ready")
            assert node.pids()["s19"] != stranger.pid
            node.stop()
            assert alive(stranger.pid), "and it is not killed either"
        finally:
            stranger.kill()


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "removed", "foreign"])
def test_damaged_records_cost_no_service(node: Node, damage: str) -> None:
    plan = twenty(node, "sampling")
    node.run_plan(plan)
    node.until_state("ready")
    before = identities(node)
    node.kill()
    for name in ("s00", "s07"):
        path = node.run_dir / f"services/{name}/unit"
        data = path.read_bytes()
        if damage == "removed":
            path.unlink()
        elif damage == "foreign":
            path.write_bytes((node.run_dir / "services/s01/unit").read_bytes())
        else:
            path.write_bytes({"cut": data[: len(data) // 2], "noise": os.urandom(100) + b"\n", "empty": b""}[damage])
    node.run_plan(plan)
    node.until_state("ready")
    assert identities(node) == before, "what runs as the plan says is known by its processes"
    if damage not in ("removed", "noise"):
        assert node.events("set-aside")


def test_a_torn_committed_plan_is_said_and_the_given_one_runs(node: Node) -> None:
    plan = twenty(node, "none")
    node.run_plan(plan)
    node.until_state("ready")
    before = identities(node)
    node.kill()
    committed = node.data_dir / "plan"
    committed.write_bytes(committed.read_bytes()[:100])
    node.run_plan(plan)
    node.until_state("ready")
    assert identities(node) == before
    assert any("set aside" in event["text"] for event in node.events("set-aside"))


def test_ready_said_while_no_agent_listened_costs_no_restart(node: Node) -> None:
    program = (
        "import os, socket, sys, time\n"
        "address = os.environ['NOTIFY_SOCKET']\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.02)\n"
        "try: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', address)\n"
        "except OSError: pass\n"
        "open(sys.argv[1] + '.said', 'w').close()\n"
        "time.sleep(1000)\n"
    )
    (node.root / "program.py").write_text(program)
    flag = node.root / "flag"
    profile = node.profile(f"""
        services:
          told:
            command: [/usr/bin/python3, {node.root}/program.py, {flag}, MARK]
            health: {{sd_notify: true, interval: 0}}
            start_timeout: 5s
    """)
    node.start("--config", profile)
    before = until(node.pids, "it is started")
    assert node.states() == {"told": "starting"}
    node.kill()
    flag.touch()
    until((node.root / "flag.said").exists, "it has said so to nobody")
    node.start()
    node.until_state("ready")
    assert node.pids() == before
