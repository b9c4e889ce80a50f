"""What is foretold about limits, and the words for it. The host's own verdicts must be the same, and explained too."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import edge_agent
from edge_agent.demand import Facts
from edge_agent.enforcement import (
    CONTROLLER,
    ENFORCED,
    MISSING,
    NOT_ENFORCED,
    SAMPLED,
    UNSET,
    EnforcementError,
    explain,
    mode,
    predict,
    predict_total,
    reason,
    require,
    sentence,
)
from edge_agent.host import containment, limits
from edge_agent.host.tree import TreeContainment
from edge_agent.model import RESOURCES, Limits, Plan, Service

from .samples import HYBRID, SERVER, SHELL, STOCK_PI

EVERYTHING = Limits(1, 2, 3, 4, 5, 6, 7, 8, 9)
BOUNDED = Limits(memory_limit=1 << 20, cpu_limit=100, pids_limit=10)
OF_SANDBOXES = ("no-root", "no-admin", "old-kernel", "started-without")
CODES = (*MISSING, *OF_SANDBOXES, *("by-setting", "no-io-weight", "no-device", "no-swap", "readback"))
ERRNOS = ("EINVAL", "ERANGE", "EACCES", "EPERM", "EROFS", "EBUSY", "ENOENT", "ENODEV", "EOPNOTSUPP", "EIO", "E??")


def plan(held: Limits = EVERYTHING, setting: str = "auto") -> Plan:
    service = Service("web", ("/bin/web",), limits=held)
    return Plan("p", "/p.yaml", 1 << 30, 1000, 0, 0, (service,), enforcement=setting)


def outlook(facts: Facts, held: Limits = EVERYTHING, setting: str = "auto") -> dict[str, tuple[str, str]]:
    return predict(facts, plan(held, setting))["web"]


def test_with_every_controller_everything_is_enforced() -> None:
    assert set(outlook(SERVER).values()) == {(ENFORCED, "")}
    assert predict_total(SERVER, plan()) == {"memory": (ENFORCED, ""), "cpu": (ENFORCED, "")}
    assert outlook(SERVER, setting="cgroup2") == outlook(SERVER)


def test_what_is_not_asked_is_unset() -> None:
    held = outlook(SERVER, Limits())
    assert held.pop("oom_group") == (ENFORCED, "")
    assert set(held.values()) == {(UNSET, "")}


def test_a_cpu_request_alone_is_a_weight_to_be_held() -> None:
    assert outlook(SERVER, Limits(cpu_request=1))["cpu"] == (ENFORCED, "")


def fallback(code: str) -> dict[str, tuple[str, str]]:
    """Memory and tasks are watched, the rest is not held."""
    return {name: (SAMPLED if name in ("memory", "pids") else NOT_ENFORCED, code) for name in RESOURCES}


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (HYBRID._replace(swap=1), "no-cgroup2"),
        (Facts(1, 1, swap=1, cgroup="v1"), "no-cgroup2"),
        (Facts(1, 1, swap=1), "no-cgroup2"),
        (SHELL._replace(swap=1), "not-delegated"),
        (SERVER._replace(swap=1, controllers=()), "no-controller"),
    ],
)
def test_without_the_kernel_memory_and_tasks_are_watched(facts: Facts, code: str) -> None:
    assert outlook(facts) == fallback(code)
    assert predict_total(facts, plan()) == {"memory": (SAMPLED, code), "cpu": (NOT_ENFORCED, code)}


def test_a_stock_pi_holds_all_but_memory() -> None:
    held = outlook(STOCK_PI, BOUNDED._replace(swap_limit=0))
    assert held["memory"] == (SAMPLED, "memory-disabled")
    assert held["swap"] == held["oom_group"] == (NOT_ENFORCED, "memory-disabled")
    assert held["cpu"] == held["pids"] == (ENFORCED, "")
    assert predict_total(STOCK_PI, plan()) == {"memory": (SAMPLED, "memory-disabled"), "cpu": (ENFORCED, "")}


def test_each_missing_controller_takes_only_its_own() -> None:
    for controller in ("memory", "cpu", "pids", "io"):
        facts = SERVER._replace(swap=1, controllers=tuple(name for name in SERVER.controllers if name != controller))
        lacking = {name for name, (kind, _) in outlook(facts).items() if kind != ENFORCED}
        assert lacking == {name for name in RESOURCES if CONTROLLER[name] == controller}


def test_settings_decide_over_the_kernel() -> None:
    facts = SERVER._replace(swap=1)
    assert outlook(facts, setting="sampling") == fallback("by-setting")
    assert set(outlook(facts, setting="none").values()) == {(NOT_ENFORCED, "by-setting")}
    assert predict_total(facts, plan(setting="none"))["memory"] == (NOT_ENFORCED, "by-setting")


def test_an_override_on_a_hybrid_machine_is_a_cgroup_like_any_other() -> None:
    facts = HYBRID._replace(cgroup_path="/sys/fs/cgroup/unified/lab", delegated=True, controllers=("pids",))
    assert mode(facts, "auto") == ("cgroup2", "")
    assert outlook(facts)["pids"] == (ENFORCED, "")
    assert outlook(facts)["memory"] == (SAMPLED, "no-controller")


def test_io_needs_a_disk_and_something_that_acts_on_weights() -> None:
    weight, rate = Limits(io_weight=5), Limits(io_write_bps=5)
    bare = SERVER._replace(io_weight=False, io_device="")
    assert outlook(bare, weight)["io"] == (NOT_ENFORCED, "no-io-weight")
    assert outlook(bare, rate)["io"] == (NOT_ENFORCED, "no-device")
    assert outlook(bare._replace(io_device="8:0"), rate)["io"] == (ENFORCED, "")
    assert outlook(bare._replace(io_device="8:0"), rate._replace(io_weight=5))["io"] == (NOT_ENFORCED, "no-io-weight")


def test_a_swap_limit_on_a_machine_without_swap_is_nothing_to_worry_about() -> None:
    assert outlook(HYBRID, Limits(swap_limit=0))["swap"] == (UNSET, "no-swap")
    assert outlook(SERVER, Limits(swap_limit=0))["swap"] == (ENFORCED, "")


def test_insisting_on_cgroup2_names_each_lack_once() -> None:
    asked = plan(BOUNDED, "cgroup2")
    require(SERVER, asked)
    require(HYBRID, plan(BOUNDED, "auto"))
    with pytest.raises(EnforcementError) as caught:
        require(STOCK_PI._replace(controllers=("cpu",)), asked)
    assert len(caught.value.problems) == 2
    assert re.fullmatch(
        r"cannot enforce memory, oom_group by cgroup2 as asked: .*; fix: append .*", str(caught.value).split("\n")[0]
    )
    assert "cannot enforce pids by cgroup2 as asked: the pids controller" in caught.value.problems[1]
    assert "restarts a service" not in str(caught.value)


def test_a_plan_that_insists_is_never_said_to_be_sampled() -> None:
    held = outlook(SERVER._replace(swap=1, controllers=()), setting="cgroup2")
    assert set(held.values()) == {(NOT_ENFORCED, "no-controller")}


def test_what_cannot_matter_does_not_stop_a_plan_that_insists() -> None:
    require(SERVER._replace(io_weight=False), plan(Limits(io_weight=5), "cgroup2"))


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [*CODES, *(f"refused:{name}" for name in ERRNOS)])
@pytest.mark.parametrize("kind", [SAMPLED, NOT_ENFORCED])
@pytest.mark.parametrize("resource", RESOURCES)
def test_every_reason_has_both_sentences(resource: str, kind: str, code: str) -> None:
    because, fix = explain(resource, kind, code)
    assert because
    assert fix
    assert not re.search(r"[{}]|\.$|the agent says", because + fix)
    assert sentence(resource, kind, code) == f"{kind}, because {because}; fix: {fix}"


def test_every_code_that_the_agent_can_report_is_known() -> None:
    """String constants of the resident and of the host that look like codes, wherever they are written."""
    looks = re.compile(r"no-[a-z0-9-]+|old-kernel|started-without|by-setting|readback|memory-disabled|not-delegated")
    root = Path(edge_agent.__file__).parent
    found = {
        node.value
        for path in [*root.glob("host/*.py"), *root.glob("agent/*.py")]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and looks.fullmatch(node.value)
    }
    assert found >= {"no-cgroup2", "by-setting", "readback", "no-root"}
    assert found <= set(CODES)


def test_the_host_says_it_with_the_same_names() -> None:
    assert limits.CONTROLLER == CONTROLLER
    assert (containment.ENFORCED, containment.SAMPLED, containment.NOT_ENFORCED, containment.UNSET) == (
        (ENFORCED, SAMPLED, NOT_ENFORCED, UNSET)
    )


@pytest.mark.parametrize("held", [EVERYTHING, BOUNDED, Limits(), Limits(cpu_request=1), Limits(io_read_bps=1)])
@pytest.mark.parametrize("setting", ["sampling", "none"])
def test_the_process_tree_reports_what_was_foretold(held: Limits, setting: str) -> None:
    tree = TreeContainment("/run/test", setting, "by-setting")
    facts = HYBRID._replace(swap=1)
    assert tree.resize(Service("web", ("/bin/web",), limits=held)) == outlook(facts, held, setting)
    assert tree.set_total(1, 1) == predict_total(facts, plan(setting=setting))


@pytest.mark.parametrize("held", [EVERYTHING, BOUNDED, Limits(), Limits(io_read_bps=1), Limits(io_weight=1)])
@pytest.mark.parametrize("controllers", [("cpu", "io", "memory", "pids"), ("cpu", "io", "pids"), ("memory",), ()])
@pytest.mark.parametrize(("device", "weight"), [("8:0", "io_weight"), ("8:0", ""), ("", "")])
def test_the_cgroups_report_what_was_foretold(
    held: Limits, controllers: tuple[str, ...], device: str, weight: str
) -> None:
    facts = SERVER._replace(swap=1, controllers=controllers, io_device=device, io_weight=bool(weight))
    missing = {name: "no-controller" for name in limits.CONTROLLERS if name not in controllers}
    reported = limits.report(held, {}, missing, limits.Io(device, weight), sampled=True)
    assert reported == outlook(facts, held)


def test_enforced_needs_no_words() -> None:
    assert explain("memory", ENFORCED, "") == ("", "")
    assert explain("memory", UNSET, "") == ("", "")
    assert sentence("memory", ENFORCED, "") == "enforced"
    assert sentence("memory", UNSET, "") == "no limit asked for"
    assert sentence("swap", UNSET, "no-swap") == "no limit set: this machine has no swap"


def test_the_pi_is_told_what_to_write_and_where() -> None:
    assert sentence("memory", SAMPLED, "memory-disabled") == (
        "sampled, because the kernel command line has cgroup_disable=memory; the agent measures it and restarts a "
        "service that is over; fix: append cgroup_enable=memory to the one line of /boot/firmware/cmdline.txt "
        "(`edge-agent check --fix` does it) and reboot (other than on a Raspberry Pi: take cgroup_disable=memory out)"
    )


def test_what_still_applies_is_said() -> None:
    assert "only nice and the scheduler class apply" in explain("cpu", NOT_ENFORCED, "no-cgroup2")[0]
    assert "only the I/O priority applies" in explain("io", NOT_ENFORCED, "no-cgroup2")[0]


def test_a_refusal_names_the_error() -> None:
    because, fix = reason("io", "refused:ENODEV")
    assert because == "the kernel refused the value (ENODEV, No such device)"
    assert "EDGE_AGENT_DATA_DIR" in fix
    assert "CONFIG_CGROUP_PIDS" in reason("pids", "refused:ENOENT")[1]


def test_an_unknown_code_is_passed_on() -> None:
    assert reason("memory", "no-{moon}") == ("the agent says 'no-{moon}'", "see `edge-agent events` and the kernel log")
