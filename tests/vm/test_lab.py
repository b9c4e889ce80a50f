"""The lab itself: what the guest is, and that what happens in it is what the host is told."""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path

import pytest

from . import kernel
from .errors import LabError, LabTimeoutError
from .lab import Guest, Lab

pytestmark = pytest.mark.vm


def test_systemd_is_process_1_and_has_come_up(guest: Guest) -> None:
    assert guest.check("cat /proc/1/comm") == "systemd\n"
    assert guest.check("systemctl is-system-running --wait") == "running\n"


def test_the_kernel_has_unified_cgroups_with_the_controllers_of_a_service(guest: Guest) -> None:
    assert guest.check("stat -f -c %T /sys/fs/cgroup") == "cgroup2fs\n"
    assert {"cpu", "io", "memory", "pids"} <= set(guest.check("cat /sys/fs/cgroup/cgroup.controllers").split())


def test_tests_get_an_empty_delegated_cgroup_with_every_controller(guest: Guest) -> None:
    assert guest.check('cat "$LAB_CGROUP"/cgroup.procs') == ""
    assert {"cpu", "io", "memory", "pids"} <= set(guest.check('cat "$LAB_CGROUP"/cgroup.subtree_control').split())
    assert guest.check("systemctl show -P Delegate edge-agent-lab") == "yes\n"


def test_commands_run_outside_the_runners_cgroup(guest: Guest) -> None:
    assert guest.check("cat /proc/self/cgroup") == "0::/system.slice/edge-agent-lab.service/command\n"


def test_pressure_is_measured(guest: Guest) -> None:
    assert guest.check("cat /proc/pressure/memory").startswith("some avg10=")


def test_python_is_the_systems_and_has_the_project_and_its_packages(guest: Guest) -> None:
    program = "import sys, edge_agent, msgpack, psutil, zmq; print(sys.executable)"
    assert guest.check(["python3", "-c", program]) == "/usr/bin/python3\n"


def test_the_edge_agent_command_is_there(guest: Guest) -> None:
    import edge_agent

    assert edge_agent.__version__ in guest.check("cd / && edge-agent --version")


def test_the_example_profiles_programs_are_installed_and_not_started(guest: Guest) -> None:
    assert (
        guest.check("command -v redis-server; command -v mosquitto") == "/usr/bin/redis-server\n/usr/sbin/mosquitto\n"
    )
    assert guest.run("systemctl is-active redis-server mosquitto").output == "inactive\ninactive\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", -signal.SIGKILL), (["/no/such/program"], 127)],
)
def test_the_code_of_a_command_comes_back(guest: Guest, command: str | list[str], code: int) -> None:
    assert guest.run(command).code == code


def test_both_outputs_come_back_in_their_order_and_as_they_come(guest: Guest) -> None:
    echo = io.BytesIO()
    result = guest.run("echo one; echo two >&2; echo three", echo=echo)
    assert (result.code, result.output) == (0, "one\ntwo\nthree\n")
    assert echo.getvalue() == b"one\ntwo\nthree\n"


def test_large_output_comes_back_whole(guest: Guest) -> None:
    size = 5_000_000
    assert guest.run(["sh", "-c", f"head -c {size} /dev/zero | tr '\\0' x"]).output == "x" * size


def test_a_failing_command_is_a_failure_with_its_output(guest: Guest) -> None:
    with pytest.raises(LabError, match=r"ended with 3 in the guest:\nno good"):
        guest.check("echo no good; exit 3")


def test_environment_and_directory_are_those_asked_for(guest: Guest) -> None:
    assert guest.run('echo "$FRUIT $PWD"', env={"FRUIT": "pear"}, cwd="/var").output == "pear /var\n"
    assert guest.check("ls pyproject.toml edge_agent/__init__.py") == "edge_agent/__init__.py\npyproject.toml\n"


def test_a_background_process_does_not_hold_the_command(guest: Guest) -> None:
    begun = time.monotonic()
    assert guest.run("sleep 600 & echo $!", timeout=60).code == 0
    assert time.monotonic() - begun < 60
    assert guest.check("pkill -x sleep && echo ended") == "ended\n"


def test_files_go_in_and_come_back(guest: Guest, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/file").write_bytes(content)
    guest.push(tmp_path / "in", "/var/tmp/pushed")
    assert guest.check("stat -c '%u %s' /var/tmp/pushed/deep/file") == "0 3000000\n"
    guest.fetch("/var/tmp/pushed", tmp_path / "out")
    assert (tmp_path / "out/deep/file").read_bytes() == content


def test_what_cannot_be_fetched_is_an_error(guest: Guest, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"cannot fetch /no/such from the guest: .*No such file"):
        guest.fetch("/no/such", tmp_path)


def test_the_kernel_lab_runs_a_command_on_a_fresh_disk_and_brings_back_its_results(
    lab_tools: None, guest: Guest, tmp_path: Path
) -> None:
    guest.check("echo of another guest >/var/lib/file && sync")
    command = (
        'cat /proc/1/comm "$LAB_CGROUP"/cgroup.controllers; ls /var/lib/file; echo kept >"$LAB_RESULTS/note"; exit 3'
    )
    result = kernel.run(command, results=tmp_path / "results")
    first, controllers, absent = result.output.splitlines()
    assert first == "sh"
    assert {"cpu", "io", "memory", "pids"} <= set(controllers.split())
    assert absent == "ls: cannot access '/var/lib/file': No such file or directory"
    assert result.code == 3
    assert (tmp_path / "results/note").read_text() == "kept\n"


def test_a_command_that_takes_too_long_ends_its_guest_and_no_other(guest: Guest) -> None:
    with Lab(kernel_only=True).boot() as other:
        pid = other.pid
        with pytest.raises(LabTimeoutError, match=r"2 s are up; it had written:\nbegun") as late:
            other.run("echo begun; sleep 600", timeout=2)
        assert late.value.output == "begun\n"
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(LabError, match="powered off"):
            other.run("true")
    assert guest.check("echo here") == "here\n"


def test_a_guest_that_goes_away_is_an_error_with_its_last_words(lab_tools: None) -> None:
    with Lab(kernel_only=True).boot() as guest, pytest.raises(LabError, match=r"(?s)the guest has gone.*sysrq"):
        guest.run("echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger")


def test_a_kernel_that_cannot_boot_is_an_error_with_its_console(lab_tools: None) -> None:
    with pytest.raises(LabError, match=r"(?s)the guest has gone.*(VFS|panic)"):
        Lab(append="rdinit=/no/such init=/no/such root=", kernel_only=True, boot_timeout=60).boot()


def test_a_persistent_disk_outlives_a_reboot_and_a_power_cut(lab_tools: None) -> None:
    with Lab(kernel_only=True, persistent=True).boot() as guest:
        guest.check("echo kept >/var/lib/synced && sync")
        first = guest.check("cat /proc/sys/kernel/random/boot_id")
        guest.reboot()
        assert guest.check("cat /proc/sys/kernel/random/boot_id") != first
        assert guest.check("cat /var/lib/synced") == "kept\n"
        guest.check("echo lost >/var/lib/only-in-memory")
        guest.cut_power()
        with pytest.raises(LabError, match="powered off"):
            guest.run("true")
        guest.start()
        assert guest.check("cat /var/lib/synced") == "kept\n"
        assert guest.run("cat /var/lib/only-in-memory").output != "lost\n"


def test_a_snapshot_cannot_be_rebooted(guest: Guest) -> None:
    with pytest.raises(LabError, match="cannot reboot a snapshot"):
        guest.reboot()
