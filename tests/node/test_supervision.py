"""A real agent and real processes, on whatever machine the tests run: supervision, logs, attribution, the end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from .harness import Node, alive, until, with_argument


def test_a_profile_runs_and_an_interrupt_leaves_nothing(node: Node) -> None:
    profile = node.profile("""
        services:
          a: {command: [/bin/sh, -c, "sleep 1000 & sleep 1000", MARK]}
          b: {command: [/bin/sleep, "1000"], depends_on: [a]}
    """)
    node.start("--config", profile)
    node.until_state("ready")
    assert "memory" in node.output()
    pids = node.pids()
    assert node.stop(signal.SIGINT) == 0
    assert not any(alive(pid) for pid in pids.values())
    assert not with_argument(node.mark)
    assert not node.run_dir.exists() or list(node.run_dir.iterdir()) == []


def test_attributes_are_set_before_the_first_instruction(node: Node) -> None:
    profile = node.profile("""
        services:
          probe:
            command:
              - /bin/sh
              - -c
              - 'cat /proc/self/oom_score_adj; ulimit -n; nice; echo "$GREETING"; pwd; sleep 1000'
              - MARK
            environment: {GREETING: hello}
            working_directory: /tmp
            nice: 5
            rlimits: {nofile: 321}
            oom_score_adj: 123
    """)
    node.start("--config", profile)
    node.until_state("ready")
    lines = until(
        lambda: (found := node.call("logs", name="probe")["data"].decode().split("\n"))[5:] and found, "output"
    )
    assert lines[:5] == ["123", "321", "5", "hello", "/tmp"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a service another user")
def test_a_service_runs_as_its_user(node: Node) -> None:
    profile = node.profile("""
        services:
          probe: {command: [/bin/sh, -c, "id -u; id -g; sleep 1000", MARK], user: nobody}
    """)
    node.start("--config", profile)
    text = until(lambda: node.call("logs", name="probe")["data"].decode(), "output")
    assert text.split()[0] == "65534"


def test_a_crash_loop_is_backed_off_then_quarantined_and_can_be_started_again(node: Node) -> None:
    profile = node.profile("""
        services:
          bad:
            command: [/bin/sh, -c, "exit 3", MARK]
            restart_policy: {max_attempts: 2, delay: 50ms, jitter: 0}
          good: {command: [/bin/sleep, "1000"]}
    """)
    node.start("--config", profile)
    node.until_state("quarantined", "bad")
    entry = node.service("bad")
    assert entry["restarts"] == 2
    assert "exited with code 3; gave up after 2 restarts in a row" in entry["reason"]
    assert node.states()["good"] == "ready"
    requested = node.status()["budget"]["memory"]["requested"]
    assert requested == node.status()["budget"]["memory"]["reserve"], "quarantine frees its request"
    node.call("start", name="bad")
    until(lambda: node.service("bad")["restarts"] == 4, "it was tried again")
    why = node.cli("why", "bad", check=True).stdout
    assert "exited with code 3" in why


def test_a_program_that_cannot_be_executed_says_why(node: Node, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/nonexistent/interpreter\n")
    script.chmod(0o755)
    profile = node.profile(f"""
        services:
          bad: {{command: [{script}], restart_policy: {{max_attempts: 0}}}}
    """)
    node.start("--config", profile)
    node.until_state("quarantined", "bad")
    assert "interpreter" in node.service("bad")["last_exit"]["text"]


def test_what_a_main_process_leaves_behind_is_killed_before_the_restart(node: Node) -> None:
    profile = node.profile("""
        services:
          fork:
            command: [/bin/sh, -c, "setsid sh -c 'setsid sleep 1000 MARK; true' MARK & sleep 0.3; exit 1", MARK]
            restart_policy: {max_attempts: 1, delay: 100ms}
    """)
    node.start("--config", profile)
    node.until_state("quarantined", "fork")
    assert not with_argument(node.mark)


def test_a_service_that_ignores_its_stop_signal_is_killed(node: Node) -> None:
    profile = node.profile("""
        services:
          deaf:
            command: [/bin/sh, -c, "trap '' TERM; echo up; while :; do sleep 1; done", MARK]
            stop_timeout: 300ms
    """)
    node.start("--config", profile)
    until(lambda: node.call("logs", name="deaf")["data"], "it has set its trap")
    assert node.cli("stop", "deaf").returncode == 0
    assert node.states() == {"deaf": "off"}
    assert not with_argument(node.mark)
    assert node.cli("start", "deaf").returncode == 0
    assert node.states() == {"deaf": "ready"}


def test_dependencies_wait_for_readiness_by_a_probe(node: Node, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    profile = node.profile(f"""
        services:
          base: {{command: [/bin/sleep, "1000"], health: {{exec: [/usr/bin/test, -e, {flag}], interval: 1s}}}}
          top: {{command: [/bin/sleep, "1000"], depends_on: [base]}}
    """)
    node.start("--config", profile)
    until(lambda: node.service("top")["reason"] == "waits for base, which is starting", "it waits")
    flag.touch()
    node.until_state("ready")


def test_an_unhealthy_service_is_restarted(node: Node, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    profile = node.profile(f"""
        services:
          web:
            command: [/bin/sleep, "1000"]
            health: {{exec: [/usr/bin/test, -e, {flag}], interval: 100ms, failures: 2}}
            restart_policy: {{delay: 100ms}}
    """)
    node.start("--config", profile)
    node.until_state("ready")
    flag.unlink()
    until(lambda: node.events("unhealthy"), "it is seen")
    flag.touch()
    until(lambda: node.service("web")["restarts"] >= 1 and node.states()["web"] == "ready", "it is back")


def test_readiness_by_sd_notify(node: Node) -> None:
    program = (
        "import os, socket, time, sys\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "s.connect(os.environ['NOTIFY_SOCKET'])\n"
        "print(os.environ.get('WATCHDOG_USEC'), flush=True)\n"
        "time.sleep(0.5)\n"
        "s.send(b'READY=1')\n"
        "time.sleep(1000)\n"
    )
    (node.root / "program.py").write_text(program)
    profile = node.profile(f"""
        services:
          told:
            command: [/usr/bin/python3, {node.root}/program.py, MARK]
            health: {{sd_notify: true, interval: 0}}
    """)
    node.start("--config", profile)
    assert node.states() == {"told": "starting"}
    node.until_state("ready")


def test_output_is_kept_bounded_and_followed(node: Node) -> None:
    profile = node.profile("""
        services:
          noisy:
            command: [/bin/sh, -c, "i=0; while [ $i -lt 3000 ]; do echo line-$i; i=$((i+1)); done; sleep 1000", MARK]
            log: {kind: memory, max_size: 16KiB}
    """)
    node.start("--config", profile)
    until(lambda: b"line-2999\n" in node.call("logs", name="noisy")["data"], "all has been written")
    data = node.call("logs", name="noisy", cursor=0)["data"]
    assert data.endswith(b"line-2999\n")
    assert len(data) <= 16 * 1024
    sizes = sum(path.stat().st_size for path in node.run_dir.rglob("noisy.log*") if path.is_file())
    assert sizes <= 16 * 1024 + 4096
    assert "line-2999" in node.cli("logs", "noisy", "-n", "3", check=True).stdout


def test_a_flood_of_output_leaves_the_agent_answering(node: Node) -> None:
    profile = node.profile("""
        services:
          flood: {command: [/bin/sh, -c, "yes MARK", MARK]}
    """)
    node.start("--config", profile)
    node.until_state("ready")
    pid = node.status()["agent"]["pid"]

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before, begun = ticks(), time.monotonic()
    for _ in range(20):
        assert node.states() == {"flood": "ready"}
    until(lambda: time.monotonic() - begun > 2, "two seconds")
    share = (ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - begun)
    assert share < 0.5, f"a flood takes {share:.0%} of a core of the agent"


def test_killed_by_a_signal_is_told_from_an_exit(node: Node) -> None:
    profile = node.profile("""
        services:
          victim: {command: [/bin/sleep, "1000"], restart_policy: {delay: 50ms}}
    """)
    node.start("--config", profile)
    node.until_state("ready")
    os.kill(node.pids()["victim"], signal.SIGKILL)
    until(lambda: node.service("victim")["restarts"] == 1, "it is restarted")
    assert node.service("victim")["last_exit"]["text"] == "killed by signal 9"
    node.stop()
    node.start("--config", node.root / "test.yaml")
    assert any("killed by signal 9" in event["text"] for event in node.events("exit", "victim")), "kept over a restart"


def test_over_its_limit_without_a_controller_it_is_restarted_and_said(node: Node) -> None:
    profile = node.profile("""
        deployment: {enforcement: sampling}
        services:
          greedy:
            command: [/usr/bin/python3, -c, "x = b'x' * (80 << 20); import time; time.sleep(1000)", MARK]
            resources: {memory: 40MiB}
            restart_policy: {max_attempts: 0}
          modest: {command: [/bin/sleep, "1000"], resources: {memory: 40MiB}}
    """)
    node.start("--config", profile)
    assert node.service("greedy")["enforcement"]["memory"]["kind"] == "sampled"
    node.until_state("quarantined", "greedy")
    assert "its limit is 40.0 MiB" in node.service("greedy")["last_exit"]["text"]
    assert node.states()["modest"] == "ready"
