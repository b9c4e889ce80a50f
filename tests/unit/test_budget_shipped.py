"""The shipped profiles on three machines: the plan a person sees there, or the refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.admission import BudgetError
from edge_agent.budget import compile_plan
from edge_agent.cli.planview import render
from edge_agent.enforcement import predict, predict_sandboxes, predict_total

from .profiles import load_file
from .samples import SERVER, STOCK_PI

SHIPPED = Path(__file__).parents[2] / "profiles"
NAMES = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
ZERO = STOCK_PI._replace(memory=428 << 20, memory_disabled_on_cmdline=False, controllers=SERVER.controllers)
"""A Raspberry Pi Zero 2 W with the memory controller switched on."""
MACHINES = {"server": SERVER, "stock-pi": STOCK_PI, "zero": ZERO}


def test_profiles_are_shipped() -> None:
    assert {"edge", "single-node", "development", "minimal", "example"} <= set(NAMES)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", NAMES)
def test_what_a_person_sees(name: str, machine: str, golden: Callable[[str, str], None]) -> None:
    facts = MACHINES[machine]
    asked = load_file(SHIPPED / f"{name}.yaml")._replace(source=f"profiles/{name}.yaml")
    try:
        plan = compile_plan(asked, facts)
    except BudgetError as error:
        seen = f"{error}\n"
    else:
        seen = render(plan, predict(facts, plan), predict_total(facts, plan), predict_sandboxes(facts, plan))
    golden(f"shipped-{name}-{machine}.txt", seen)
