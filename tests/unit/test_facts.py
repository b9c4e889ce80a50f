"""What the agent takes a machine for, on fake trees of /proc, /sys and /run written in one expression."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from edge_agent.demand import Facts
from edge_agent.host.facts import CGROUP_ROOT_VARIABLE, Machine, gather, measure
from edge_agent.host.hierarchy import find, read_mounts

CGROUP2 = "25 18 0:22 / {root}/sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = [
    "31 23 0:28 / {root}/sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755",
    "32 31 0:29 / {root}/sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu",
    "35 31 0:32 / {root}/sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory",
]
HYBRID = [*V1, "41 31 0:38 / {root}/sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"]
UNIT = "/system.slice/edge-agent.service"
CONTROLLERS = "cpuset cpu io memory pids\n"


class Tree:
    """A fake root directory, and ``gather`` looking at it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.marks: dict[str, bytes] = {}
        (root / "run").mkdir()

    def write(self, files: Mapping[str, str | list[str]]) -> Tree:
        """Files by path; a list is joined to lines. ``{root}`` stands for the fake root."""
        for name, content in files.items():
            path = self.root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, str) else "\n".join(content) + "\n"
            path.write_text(text.replace("{root}", str(self.root)))
        return self

    def cgroup(self, path: str, controllers: str = CONTROLLERS, **files: str) -> Tree:
        """A cgroup v2 directory."""
        base = f"/sys/fs/cgroup{path}"
        self.write({f"{base}/cgroup.{name}": "" for name in ("procs", "subtree_control")})
        return self.write({f"{base}/cgroup.controllers": controllers} | {f"{base}/{n}": c for n, c in files.items()})

    def systemd(self, *delegated: str, mark: str = "user.delegate") -> Tree:
        """systemd runs, and has marked these cgroups as delegated."""
        (self.root / "run/systemd/system").mkdir(parents=True)
        self.marks |= {f"{self.directory(path)} {mark}": b"1" for path in delegated}
        return self

    def directory(self, path: str) -> str:
        return f"{self.root}/sys/fs/cgroup{path}"

    def get_mark(self, path: str, name: str) -> bytes:
        try:
            return self.marks[f"{path} {name}"]
        except KeyError:
            raise OSError(errno.ENODATA, "no such attribute", path) from None

    def facts(self, **changes: Any) -> Facts:
        given: dict[str, Any] = {
            "data_dir": str(self.root / "data"),
            "override": "",
            "cgroup_root": self.directory(""),
            "proc": str(self.root / "proc"),
            "sys": str(self.root / "sys"),
            "run": str(self.root / "run"),
            "machine": lambda: Machine(memory=1 << 30, cpus=4, swap=0),
            "get_mark": self.get_mark,
            "device_of": lambda _path: os.makedev(8, 2),
        }
        return gather(**given | changes)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def unified(tree: Tree, own: str = UNIT) -> Tree:
    """Debian 12 with the agent in the cgroup ``own``."""
    tree.write({"/proc/self/mountinfo": [CGROUP2], "/proc/self/cgroup": [f"0::{own}"]})
    return tree.cgroup("").cgroup(own)


@pytest.mark.parametrize("mark", ["user.delegate", "trusted.delegate"])
def test_a_delegated_unit(tree: Tree, mark: str) -> None:
    facts = unified(tree).systemd(UNIT, mark=mark).facts()
    assert facts.cgroup == "unified"
    assert (facts.cgroup_path, facts.delegated) == (tree.directory(UNIT), True)
    assert facts.controllers == ("cpuset", "cpu", "io", "memory", "pids")
    assert facts.systemd


def test_after_its_move_the_agent_still_owns_the_unit(tree: Tree) -> None:
    facts = unified(tree, f"{UNIT}/agent").cgroup(UNIT, "cpu memory\n").systemd(UNIT).facts()
    assert (facts.cgroup_path, facts.delegated, facts.controllers) == (tree.directory(UNIT), True, ("cpu", "memory"))


def test_a_session_is_not_delegated_though_root_could_write_there(tree: Tree) -> None:
    session = "/user.slice/user-0.slice/session-1.scope"
    facts = unified(tree, session).systemd(UNIT).facts()
    assert (facts.cgroup_path, facts.delegated) == (tree.directory(session), False)


def test_delegation_to_a_user_manager_is_not_to_us(tree: Tree) -> None:
    manager = "/user.slice/user-1000.slice/user@1000.service"
    facts = unified(tree, f"{manager}/app.slice/shell.scope").systemd(manager).facts()
    assert not facts.delegated


def test_the_mark_must_say_one(tree: Tree) -> None:
    unified(tree).systemd(UNIT).marks[f"{tree.directory(UNIT)} user.delegate"] = b"0"
    assert not tree.facts().delegated


def test_a_delegated_unit_that_cannot_be_written_is_not_ours(tree: Tree) -> None:
    unified(tree).systemd(UNIT)
    for refused in ("", "/cgroup.procs", "/cgroup.subtree_control"):
        closed = tree.directory(UNIT) + refused
        assert not tree.facts(access=lambda path, _mode, closed=closed: path != closed).delegated


def test_without_systemd_a_writable_cgroup_is_enough(tree: Tree) -> None:
    unified(tree, "/")
    assert (tree.facts().cgroup_path, tree.facts().delegated) == (tree.directory(""), True)
    assert not tree.facts(access=lambda _path, mode: not mode & os.W_OK).delegated


def test_without_systemd_the_agents_own_child_leads_to_its_parent(tree: Tree) -> None:
    assert unified(tree, "/agent").facts().cgroup_path == tree.directory("")


def test_a_read_only_mount_is_not_delegated(tree: Tree) -> None:
    unified(tree).write({"/proc/self/mountinfo": [CGROUP2.replace(" rw,", " ro,", 1)]})
    assert not tree.facts().delegated


def test_the_cgroup_of_the_resident_matters_not_of_the_command(tree: Tree) -> None:
    unified(tree, "/user.slice").systemd(UNIT).cgroup(UNIT).cgroup(f"{UNIT}/agent")
    tree.write({"/proc/77/mountinfo": [CGROUP2], "/proc/77/cgroup": [f"0::{UNIT}/agent"]})
    assert not tree.facts().delegated
    assert (tree.facts(pid=77).cgroup_path, tree.facts(pid=77).delegated) == (tree.directory(UNIT), True)
    assert tree.facts(pid=78).cgroup == "none"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_access_of_another_process_is_judged_by_its_owner(tree: Tree) -> None:
    unified(tree).write({"/proc/77/mountinfo": [CGROUP2], "/proc/77/cgroup": [f"0::{UNIT}"]})
    os.chown(tree.root / "proc/77", 1000, 1000)
    assert not tree.facts(pid=77).delegated
    for name in ("", "cgroup.procs", "cgroup.subtree_control"):
        os.chown(f"{tree.directory(UNIT)}/{name}", 1000, 1000)
    assert tree.facts(pid=77).delegated


def test_a_container_sees_its_cgroup_as_the_root(tree: Tree) -> None:
    """cgroup_namespaces(7): both /proc/self/cgroup and the mount are relative to the namespace."""
    assert unified(tree, "/").write({"/sys/fs/cgroup/memory.max": "209715200\n"}).facts().memory == 200 << 20


def test_a_container_without_namespace_has_a_part_of_the_tree_mounted(tree: Tree) -> None:
    mount = CGROUP2.replace(" / ", " /docker/0a1b ")
    tree.cgroup("").write({"/proc/self/mountinfo": [mount], "/proc/self/cgroup": ["0::/docker/0a1b"]})
    assert tree.facts().cgroup_path == tree.directory("")
    tree.write({"/proc/self/cgroup": ["0::/docker/0a1bcd"]})
    assert tree.facts().cgroup_path == ""
    tree.write({"/proc/self/cgroup": ["0::/../other"], "/proc/self/mountinfo": [CGROUP2]})
    tree.cgroup("/../other")
    assert tree.facts().cgroup_path == ""


def test_memory_is_bounded_by_what_is_above_the_agent(tree: Tree) -> None:
    unified(tree).systemd(UNIT)
    tree.write({"/sys/fs/cgroup/system.slice/memory.max": "500000000\n"})
    tree.write({f"/sys/fs/cgroup{UNIT}/memory.max": "max\n"})
    assert tree.facts().memory == 500_000_000
    tree.write({f"/sys/fs/cgroup{UNIT}/memory.max": "300000000\n", "/sys/fs/memory.max": "1\n"})
    assert tree.facts().memory == 300_000_000  # and nothing above the mount is asked


def test_a_stock_raspberry_pi(tree: Tree) -> None:
    unified(tree).cgroup(UNIT, "cpuset cpu io pids\n").systemd(UNIT).write(
        {
            "/proc/cmdline": "coherent_pool=1M cgroup_disable=memory console=tty1 rootwait\n",
            "/proc/swaps": ["Filename Type Size Used Priority", "/dev/zram0 partition 2097148 0 100"],
            "/proc/sys/kernel/osrelease": "6.12.25+rpt-rpi-v8\n",
        }
    )
    facts = tree.facts(machine=lambda: Machine(1 << 30, 4, 2 << 30))
    assert facts.memory_disabled_on_cmdline
    assert "memory" not in facts.controllers
    assert (facts.swap, facts.swap_kind, facts.psi) == (2 << 30, "zram", False)
    assert facts.kernel == "6.12.25+rpt-rpi-v8"


@pytest.mark.parametrize(
    ("cmdline", "disabled"),
    [
        ("", False),
        ("quiet cgroup_disable=memory", True),
        ("cgroup_disable=net_prio,memory", True),
        ("cgroup_disable=memory_x", False),
        ("cgroup_disable=memory cgroup_enable=memory", False),
        ("cgroup_disable=memory cgroup_enable=cpuset cgroup_memory=1", True),
    ],
)
def test_memory_on_the_kernel_command_line(tree: Tree, cmdline: str, disabled: bool) -> None:
    assert tree.write({"/proc/cmdline": cmdline}).facts().memory_disabled_on_cmdline is disabled


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ([], "none"),
        (["/dev/zram0"], "zram"),
        (["/var/swap"], "disk"),
        (["/dev/sda2"], "disk"),
        (["/var/swap", "/dev/zram1"], "zram"),
    ],
)
def test_kinds_of_swap(tree: Tree, names: list[str], kind: str) -> None:
    lines = ["Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority", *(f"{name} file 1024 0 -2" for name in names)]
    assert tree.write({"/proc/swaps": lines}).facts().swap_kind == kind


def test_hybrid_is_left_to_init(tree: Tree) -> None:
    tree.write({"/proc/self/mountinfo": HYBRID, "/proc/self/cgroup": ["4:memory:/", "0::/init.scope"]})
    facts = tree.cgroup("/unified/init.scope", "").systemd("/unified/init.scope").facts()
    assert (facts.cgroup, facts.cgroup_path, facts.delegated, facts.controllers) == ("hybrid", "", False, ())


def test_hybrid_is_used_when_told_so(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.write({"/proc/self/mountinfo": HYBRID, "/proc/self/cgroup": ["0::/"]}).cgroup("/unified/lab", "pids\n")
    tree.systemd()
    named = tree.directory("/unified/lab")
    facts = tree.facts(override=f"{named}/")
    assert (facts.cgroup, facts.cgroup_path, facts.delegated, facts.controllers) == ("hybrid", named, True, ("pids",))
    monkeypatch.setenv(CGROUP_ROOT_VARIABLE, named)
    assert tree.facts(override=None) == facts


def test_an_override_that_is_no_cgroup_is_nothing(tree: Tree) -> None:
    facts = unified(tree).systemd(UNIT).facts(override=str(tree.root / "nowhere"))
    assert (facts.cgroup_path, facts.delegated) == ("", False)


def test_version_1_only(tree: Tree) -> None:
    facts = tree.write({"/proc/self/mountinfo": V1, "/proc/self/cgroup": ["4:memory:/"]}).facts()
    assert (facts.cgroup, facts.cgroup_path, facts.delegated) == ("v1", "", False)


def test_a_version_1_controller_beside_a_unified_root_changes_nothing(tree: Tree) -> None:
    extra = "60 25 0:50 / {root}/mnt/net_cls rw - cgroup cgroup rw,net_cls"
    facts = unified(tree).systemd(UNIT).write({"/proc/self/mountinfo": [CGROUP2, extra]}).facts()
    assert (facts.cgroup, facts.delegated) == ("unified", True)


def test_version_2_alone_at_an_unusual_place(tree: Tree) -> None:
    mount = CGROUP2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/my\\040tree")
    tree.write({"/proc/self/mountinfo": [mount], "/proc/self/cgroup": ["0::/"]}).cgroup("/my tree")
    assert tree.facts().cgroup_path == tree.directory("/my tree")


def test_a_container_without_a_cgroup_mount(tree: Tree) -> None:
    mounts = ["1 0 0:50 / / rw - overlay overlay rw", "2 1 0:51 / {root}/proc rw - proc proc rw"]
    facts = tree.write({"/proc/self/mountinfo": mounts, "/proc/self/cgroup": ["0::/"]}).facts()
    assert (facts.cgroup, facts.cgroup_path) == ("none", "")


def test_an_empty_machine_is_an_answer(tree: Tree) -> None:
    def fails(_path: str) -> int:
        raise OSError(errno.EACCES, "denied")

    assert tree.facts(device_of=fails) == Facts(memory=1 << 30, cpus=4, cgroup="none", root=os.geteuid() == 0)


def test_broken_mountinfo_lines_are_skipped(tree: Tree) -> None:
    broken = ["", "1 2 3", "1 2 0:1 / /x rw shared:1 cgroup2 x rw", "1 2 0:1 / /x rw - cgroup2"]
    tree.write({"/proc/self/mountinfo": [*broken, CGROUP2]})
    assert [mount.kind for mount in read_mounts(str(tree.root / "proc/self"))] == ["cgroup2"]


def test_the_later_mount_hides_the_earlier(tree: Tree) -> None:
    hidden = CGROUP2.replace("cgroup2 cgroup2", "tmpfs tmpfs")
    assert unified(tree).write({"/proc/self/mountinfo": [CGROUP2, hidden]}).facts().cgroup_path == ""


def test_a_removed_cgroup_is_no_place(tree: Tree) -> None:
    unified(tree).write({"/proc/self/cgroup": ["0::/gone.scope (deleted)"]})
    assert tree.facts().cgroup_path == ""


def test_pressure_must_be_readable(tree: Tree) -> None:
    assert not tree.facts().psi
    assert tree.write({"/proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"}).facts().psi


# -- the disk ----------------------------------------------------------------------------------------------------------


def disk(tree: Tree, scheduler: str = "[mq-deadline] none\n") -> Tree:
    """/dev/sda (8:0) with a partition 8:2."""
    block = "/sys/devices/pci0/block/sda"
    tree.write(
        {
            f"{block}/dev": "8:0\n",
            f"{block}/queue/scheduler": scheduler,
            f"{block}/sda2/dev": "8:2\n",
            f"{block}/sda2/partition": "2\n",
        }
    )
    links = tree.root / "sys/dev/block"
    links.mkdir(parents=True)
    (links / "8:2").symlink_to(tree.root / block.lstrip("/") / "sda2")
    (links / "8:0").symlink_to(tree.root / block.lstrip("/"))
    return tree


@pytest.mark.parametrize("minor", [0, 2])
def test_a_partition_leads_to_its_disk(tree: Tree, minor: int) -> None:
    assert disk(tree).facts(device_of=lambda _path: os.makedev(8, minor)).io_device == "8:0"


def test_the_data_directory_need_not_exist(tree: Tree) -> None:
    asked: list[str] = []

    def device_of(path: str) -> int:
        asked.append(path)
        return os.makedev(8, 2)

    assert disk(tree).facts(data_dir=f"{tree.root}/not/yet", device_of=device_of).io_device == "8:0"
    assert asked == [str(tree.root)]


def test_a_filesystem_without_a_disk_has_no_device(tree: Tree) -> None:
    tmpfs = "50 1 0:44 / /data rw - tmpfs tmpfs rw"
    gone = "51 1 0:45 / /data rw - btrfs /dev/does-not-exist rw"
    disk(tree).write({"/proc/self/mountinfo": [tmpfs, gone]})
    for minor in (44, 45, 46):
        assert tree.facts(device_of=lambda _path, minor=minor: os.makedev(0, minor)).io_device == ""
    assert tree.facts(device_of=lambda _path: os.makedev(99, 1)).io_device == ""


def test_an_anonymous_device_is_followed_to_its_source(tree: Tree) -> None:
    """btrfs gives its files a device number of its own; the source of the mount is the partition."""
    null = Path("/dev/null").stat().st_rdev  # any device node: 1:3
    mount = "50 1 0:44 / /data rw - btrfs /dev/null rw"
    disk(tree).write({"/proc/self/mountinfo": [mount], "/sys/devices/x/dev": "1:3\n"})
    (tree.root / f"sys/dev/block/{os.major(null)}:{os.minor(null)}").symlink_to(tree.root / "sys/devices/x")
    assert tree.facts(device_of=lambda _path: os.makedev(0, 44)).io_device == "1:3"


def with_io(tree: Tree) -> Tree:
    return unified(disk(tree)).systemd(UNIT)


def test_weights_count_only_when_something_acts_on_them(tree: Tree) -> None:
    with_io(tree).write({f"/sys/fs/cgroup{UNIT}/io.weight": "default 100\n"})
    assert not tree.facts().io_weight
    tree.write({"/sys/fs/cgroup/io.cost.qos": "8:16 enable=1 ctrl=auto\n8:0 enable=0 ctrl=auto\n"})
    assert not tree.facts().io_weight
    tree.write({"/sys/fs/cgroup/io.cost.qos": "8:0 enable=1 ctrl=auto rpct=95.00\n"})
    assert tree.facts().io_weight


def test_bfq_acts_on_weights(tree: Tree) -> None:
    with_io(tree).write({"/sys/devices/pci0/block/sda/queue/scheduler": "none mq-deadline [bfq]\n"})
    assert tree.facts().io_weight
    without = tree.cgroup(UNIT, "cpu memory\n").facts()
    assert (without.io_weight, "io" in without.controllers) == (True, False), (
        "the disk is one thing, the controller another"
    )


# -- the real machine --------------------------------------------------------------------------------------------------


def test_this_machine_is_measured_as_psutil_has_it() -> None:
    measured = measure()
    assert (measured.memory, measured.cpus) == (psutil.virtual_memory().total, psutil.cpu_count())


def test_this_machine_has_facts(recorder: Callable[[], list[str]]) -> None:
    facts = gather()
    assert facts.memory > 0
    assert facts.cpus > 0
    assert facts.cgroup in ("unified", "hybrid", "v1", "none")
    assert facts.kernel == os.uname().release
    assert facts.delegated <= bool(facts.cgroup_path)
    assert recorder() == []


@pytest.fixture
def recorder() -> Callable[[], list[str]]:
    """Names below the agent's would-be place, that looking must not have made."""
    place = find()

    def listed() -> set[str]:
        return {path.name for path in Path(place.path).iterdir()} if place.path else set()

    before = listed()
    return lambda: sorted(listed() - before)
