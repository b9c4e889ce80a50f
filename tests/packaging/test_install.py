"""dpkg in small Debian systems, 12 and 13: installed, used, upgraded, removed, purged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_agent import __version__

from .conftest import NEWER
from .roots import Root, differences

Packages = dict[tuple[str, str], Path]

USERS = (
    "edge-agent",
    *(f"edge-agent-{name}" for name in ("analytics", "embedded", "identity", "ledger", "node", "storage", "telemetry")),
)
ACCOUNTS = re.compile(r"/etc/(passwd|group|shadow|gshadow)-?")
SERVICES = ("identity", "storage", "node")
START = "deb-systemd-invoke start edge-agent.service"
RELOAD = "systemctl --system daemon-reload"


@pytest.fixture
def deb(packages: Packages) -> Path:
    return packages["amd64", "deb"]


def test_it_runs_where_it_is_installed_and_writes_nothing_there(debian: Root, deb: Path) -> None:
    debian.run("dpkg", "--install", debian.put(deb))
    before = debian.listing("/usr")
    assert debian.run("edge-agent", "--version").strip() == f"edge-agent {__version__}"
    assert "profile edge (/usr/share/edge-agent/profiles/edge.yaml)" in debian.run(
        "edge-agent", "plan", "--profile", "edge"
    )
    assert "profile config (/etc/edge-agent/config.yaml)" in debian.run("edge-agent", "plan")
    for name in SERVICES:
        said = debian.run("sh", "-c", SERVICE, "sh", name)
        assert f"{name}: ready" in said, said
    assert differences(before, debian.listing("/usr")) == {}


SERVICE = """
edge-agent service --name $1 >/tmp/$1 2>&1 &
for _ in $(seq 150); do grep -q ': ready' /tmp/$1 && break; sleep 0.1; done
kill $!
wait $!
cat /tmp/$1
"""


def test_an_agent_runs_the_edge_profile_and_reads_it_again(debian: Root, deb: Path) -> None:
    """Every way in which the program executes itself: the resident, bundled services, the front end for a reload."""
    debian.run("dpkg", "--install", debian.put(deb))
    said = debian.run("sh", "-c", AGENT, timeout=120)
    assert "3 ready" in said
    assert re.search(r"/usr/lib/edge-agent/edge-agent -m edge_agent\.services storage", said), said
    assert "reload: 0" in said, said
    assert "executed anew: the same services" in said, said
    assert "all ended" in said, said


AGENT = r"""
edge-agent --profile edge --enforcement none >/tmp/agent.log 2>&1 &
agent=$!
ready() { edge-agent status --json | grep -c '"state": "ready"'; }
pids() { edge-agent status --json | sed -n 's/^ *"pid": \([0-9]*\),*$/\1/p' | grep -v "^$agent$" | sort; }
for _ in $(seq 100); do [ "$(ready 2>/dev/null)" = 3 ] && break; sleep 0.2; done
echo "$(ready) ready"
for pid in $(pids); do tr '\0' ' ' </proc/$pid/cmdline; echo; done
edge-agent reload; echo "reload: $?"
before=$(pids)
edge-agent reexec
for _ in $(seq 100); do [ "$(ready 2>/dev/null)" = 3 ] && break; sleep 0.2; done
[ "$(pids)" = "$before" ] && echo 'executed anew: the same services'
edge-agent shutdown
wait $agent
alive=0
for pid in $before; do [ ! -e /proc/$pid ] || { alive=1; grep -E '^(Name|State|PPid)' /proc/$pid/status; }; done
[ $alive = 1 ] || echo 'all ended'
cat /tmp/agent.log
"""


def test_removal_and_purge_leave_the_file_system_as_it_was(debian: Root, deb: Path) -> None:
    """But for the accounts: Debian keeps those of a purged package, so that their numbers are not given away."""
    before, before_accounts = debian.listing(), (debian.path / "etc/passwd").read_text()
    debian.run("dpkg", "--install", debian.put(deb))
    accounts = (debian.path / "etc/passwd").read_text()
    assert all(re.search(rf"(?m)^{user}:x:\d+:\d+:.*:/usr/sbin/nologin$", accounts) for user in USERS)
    for directory in ("var/lib/edge-agent", "var/log/edge-agent", "run/edge-agent"):
        (debian.path / directory / "left").write_text("behind")
    debian.run("dpkg", "--remove", "edge-agent")
    left = differences(before, debian.listing())
    kept = [path for path in left if not ACCOUNTS.fullmatch(path) and not path.startswith("/var/l")]
    assert set(kept) <= {
        "/etc/edge-agent",
        "/etc/edge-agent/config.yaml",
        "/etc/edge-agent/environment",
        "/etc/systemd/system/multi-user.target.wants/edge-agent.service",
    }, kept
    assert (debian.path / "var/lib/edge-agent/left").exists(), "what a service kept outlives the removal"
    debian.run("dpkg", "--purge", "edge-agent")
    changed = differences(before, debian.listing())
    assert {path for path in changed if not ACCOUNTS.fullmatch(path)} == set()
    accounts = (debian.path / "etc/passwd").read_text()
    added = set(accounts.splitlines()) - set(before_accounts.splitlines())
    assert all(line.split(":")[0] in USERS for line in added)


def test_an_upgrade_restarts_the_agent_and_keeps_configuration(debian: Root, deb: Path, newer: dict[str, Path]) -> None:
    debian.pretend_systemd("systemctl", "deb-systemd-invoke")
    debian.run("dpkg", "--install", debian.put(deb))
    assert debian.calls() == [RELOAD, START]
    (debian.path / "etc/edge-agent/config.yaml").write_text("extends: minimal\n")
    (debian.path / "etc/edge-agent/environment").write_text("EDGE_AGENT_NODE_ID=kitchen\n")
    debian.run("dpkg", "--install", debian.put(newer["deb"]))
    assert debian.calls() == [RELOAD, "deb-systemd-invoke restart edge-agent.service"]
    assert debian.run("edge-agent", "--version").strip() == f"edge-agent {NEWER}"
    assert (debian.path / "etc/edge-agent/config.yaml").read_text() == "extends: minimal\n"
    assert (debian.path / "etc/edge-agent/environment").read_text() == "EDGE_AGENT_NODE_ID=kitchen\n"
    debian.run("dpkg", "--install", debian.put(deb))
    assert debian.calls() == [RELOAD, "deb-systemd-invoke restart edge-agent.service"], "a downgrade is an upgrade"
    debian.run("dpkg", "--remove", "edge-agent")
    stops = [f"deb-systemd-invoke stop {unit}" for unit in ("edge-agent.service", "edge-agent-services.service")]
    assert debian.calls() == [*stops, RELOAD]


def test_an_administrators_choice_not_to_start_it_outlives_an_upgrade(
    bookworm: Root, deb: Path, newer: dict[str, Path]
) -> None:
    bookworm.run("dpkg", "--install", bookworm.put(deb))
    wanted = bookworm.path / "etc/systemd/system/multi-user.target.wants/edge-agent.service"
    assert wanted.is_symlink()
    bookworm.run("systemctl", "disable", "edge-agent.service")
    bookworm.run("dpkg", "--install", bookworm.put(newer["deb"]))
    assert not wanted.is_symlink()


def test_an_agent_that_cannot_start_is_no_failed_installation(bookworm: Root, deb: Path) -> None:
    bookworm.pretend_systemd("systemctl")
    failing = bookworm.path / "usr/bin/deb-systemd-invoke"
    failing.unlink()
    failing.write_text("#!/bin/sh\nexit 1\n")
    failing.chmod(0o755)
    said = bookworm.run("dpkg", "--install", bookworm.put(deb))
    assert "the agent did not start; fix: see systemctl status edge-agent" in said
    assert "install ok installed" in bookworm.run("dpkg", "--status", "edge-agent")


@pytest.mark.parametrize(("mebibytes", "profile"), [(224, "minimal"), (512, "edge")])
def test_a_fresh_installation_runs_a_profile_that_fits(bookworm: Root, deb: Path, mebibytes: int, profile: str) -> None:
    bookworm.pretend_systemd("systemctl", "deb-systemd-invoke")
    bookworm.show_memory(mebibytes)
    bookworm.run("dpkg", "--install", bookworm.put(deb))
    assert f"\nextends: {profile}\n" in (bookworm.path / "etc/edge-agent/config.yaml").read_text()
    assert "profile config (/etc/edge-agent/config.yaml)" in bookworm.run("edge-agent", "plan")


def test_an_image_for_other_machines_gets_the_edge_profile(bookworm: Root, deb: Path) -> None:
    """In a chroot without systemd the memory of the machine that makes the image says nothing."""
    bookworm.show_memory(256)
    bookworm.run("dpkg", "--install", bookworm.put(deb))
    assert "\nextends: edge\n" in (bookworm.path / "etc/edge-agent/config.yaml").read_text()


def test_a_configuration_that_is_there_is_left_alone(bookworm: Root, deb: Path) -> None:
    (bookworm.path / "etc/edge-agent").mkdir()
    (bookworm.path / "etc/edge-agent/config.yaml").write_text("extends: single-node\n")
    bookworm.run("dpkg", "--install", bookworm.put(deb))
    assert (bookworm.path / "etc/edge-agent/config.yaml").read_text() == "extends: single-node\n"


def test_another_python_is_refused_in_a_sentence(bookworm: Root, deb: Path) -> None:
    bookworm.run("dpkg", "--install", bookworm.put(deb))
    launcher = bookworm.path / "usr/lib/edge-agent/edge-agent"
    launcher.write_text(launcher.read_text().replace("((3, 11), (3, 13))", "((3, 12),)"))
    said = bookworm.run("edge-agent", "--version", check=False)
    assert "cannot start: made for Python 3.12, and /usr/bin/python3 is 3.11; fix: install a newer edge-agent" in said
    assert "Traceback" not in said
