"""What of a sandbox is read back from /proc, and what stands in its way."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.admission import BudgetError
from edge_agent.budget import compile_plan
from edge_agent.demand import Amount, Demand
from edge_agent.enforcement import EnforcementError, predict_sandboxes
from edge_agent.host import confinement
from edge_agent.model import PROTECTIONS, Sandbox, Service

from .samples import SERVER, profile
from .test_profile_sandbox import STRICT

ROOT = "Name:\tx\nUid:\t0\t0\t0\t0\nNoNewPrivs:\t0\n" + "".join(
    f"Cap{name}:\t{value:016x}\n"
    for name, value in (("Inh", 0), ("Prm", 2**41 - 1), ("Eff", 2**41 - 1), ("Bnd", 2**41 - 1))
)
CONTAINED = ROOT.replace(f"CapEff:\t{2**41 - 1:016x}", f"CapEff:\t{0xA80425FB:016x}")
PERSON = ROOT.replace(f"{2**41 - 1:016x}", f"{0:016x}").replace("Uid:\t0\t0", "Uid:\t1000\t1000")
SEALED = "Uid:\t9\t9\t9\t9\nNoNewPrivs:\t1\n" + "".join(
    f"Cap{name}:\t{0:016x}\n" for name in ("Inh", "Prm", "Eff", "Bnd")
)
MOUNTS = """\
22 1 8:1 / / ro,relatime - ext4 /dev/sda1 rw
23 22 0:21 / /proc ro,relatime - proc proc rw
24 22 0:31 / /tmp rw - tmpfs edge-agent-tmp rw,size=1024k
25 22 0:32 / /home ro - tmpfs edge-agent-home rw
26 22 0:33 / /dev ro - tmpfs edge-agent-dev rw
"""


@pytest.mark.parametrize(
    ("status", "release", "code"),
    [
        (ROOT, "6.1.0-18-arm64", ""),
        (ROOT, "5.12.0", ""),
        (ROOT, "5.10.0-28-armmp", "old-kernel"),
        (ROOT, "odd", ""),
        (CONTAINED, "6.1.0", "no-admin"),
        (PERSON, "6.1.0", "no-root"),
        ("", "6.1.0", ""),
    ],
)
def test_what_stands_in_the_way(status: str, release: str, code: str) -> None:
    assert confinement.obstacle(status, release) == code


def seen(tmp_path: Path, sandbox: Sandbox, status: str, mounts: str) -> dict[str, str]:
    for name, text in (("7/status", status), ("7/mountinfo", mounts), ("self/status", ROOT)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    report = confinement.report(sandbox, 7, str(tmp_path))
    assert tuple(report) == PROTECTIONS
    assert {code for kind, code in report.values() if kind != "not enforced"} <= {""}
    return {name: kind for name, (kind, _) in report.items()}


def test_all_of_it_is_read_back(tmp_path: Path) -> None:
    assert set(seen(tmp_path, STRICT, SEALED, MOUNTS).values()) == {"enforced"}
    assert set(seen(tmp_path, STRICT, ROOT, "").values()) == {"not enforced"}
    assert set(seen(tmp_path, Sandbox(), SEALED, MOUNTS).values()) == {"unset"}
    assert confinement.report(STRICT, 8, str(tmp_path)) == {}


@pytest.mark.parametrize(
    ("name", "status", "mounts"),
    [
        ("no_new_privileges", SEALED.replace("NoNewPrivs:\t1", "NoNewPrivs:\t0"), MOUNTS),
        ("capabilities", SEALED.replace("CapPrm:\t0", "CapPrm:\t1"), MOUNTS),
        ("read_only", SEALED, MOUNTS.replace("/ / ro", "/ / rw")),
        ("read_only", SEALED, MOUNTS.replace("/proc ro", "/proc rw")),
        ("private_tmp", SEALED, MOUNTS.replace("edge-agent-tmp", "tmpfs")),
        ("private_devices", SEALED, MOUNTS.replace("edge-agent-dev", "udev")),
        ("protect_home", SEALED, MOUNTS.replace("edge-agent-home", "home")),
    ],
)
def test_each_part_is_looked_for_by_itself(tmp_path: Path, name: str, status: str, mounts: str) -> None:
    found = seen(tmp_path, STRICT, status, mounts)
    assert [each for each, kind in found.items() if kind != "enforced"] == [name]


def test_the_bounding_set_matters_only_where_new_privileges_can_come(tmp_path: Path) -> None:
    full = SEALED.replace("CapBnd:\t0", "CapBnd:\tf")
    assert seen(tmp_path, STRICT, full, MOUNTS)["capabilities"] == "enforced"
    open_ = full.replace("NoNewPrivs:\t1", "NoNewPrivs:\t0")
    assert seen(tmp_path, STRICT, open_, MOUNTS)["capabilities"] == "not enforced"


def plan_of(sandbox: Sandbox, obstacle: str) -> dict[str, tuple[str, str]]:
    facts = SERVER._replace(sandbox_obstacle=obstacle)
    plan = compile_plan(
        profile(Demand(Service("web", ("/bin/web",), sandbox=sandbox)), memory=1 << 30, cpu=1000), facts
    )
    return predict_sandboxes(facts, plan)["web"]


def test_the_plan_foretells_it() -> None:
    wish = STRICT._replace(required=False)
    assert set(plan_of(STRICT, "").values()) == {("enforced", "")}
    assert set(plan_of(Sandbox(), "no-root").values()) == {("unset", "")}
    foretold = plan_of(wish, "no-admin")
    assert {name for name, held in foretold.items() if held == ("enforced", "")} == {
        "no_new_privileges",
        "capabilities",
    }
    assert set(foretold.values()) == {("enforced", ""), ("not enforced", "no-admin")}


def test_what_is_required_and_cannot_be_is_refused_before_anything_starts() -> None:
    with pytest.raises(EnforcementError) as caught:
        plan_of(STRICT, "old-kernel")
    assert not isinstance(caught.value, BudgetError)
    assert caught.value.problems == (
        (
            "cannot sandbox web as asked (read_only, private_tmp, private_devices, protect_home): "
            "mount_setattr(2) came with Linux 5.12; "
            "fix: use a kernel of at least 5.12, or set required: false in its sandbox"
        ),
    )
    only = Sandbox(no_new_privileges=True, capabilities=(), required=True)
    assert plan_of(only, "old-kernel")["no_new_privileges"] == ("enforced", "")


def test_a_limit_in_which_no_sandbox_can_be_made_is_refused() -> None:
    """The child would be killed by its own limit before it becomes its program."""
    small = Demand(Service("web", ("/bin/web",), sandbox=STRICT), memory_limit=Amount(4 << 20))
    with pytest.raises(BudgetError, match=r"cannot admit web: its memory limit of 4\.0 MiB is less than .*; fix: "):
        compile_plan(profile(small, memory=1 << 30, cpu=1000), SERVER)
    free = small._replace(service=small.service._replace(sandbox=Sandbox()))
    assert compile_plan(profile(free, memory=1 << 30, cpu=1000), SERVER).services[0].limits.memory_limit == 4 << 20
