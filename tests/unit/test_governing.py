"""The governor at work, with an agent and senses made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edge_agent import governor as g
from edge_agent.agent.governing import Governing
from edge_agent.model import Service


@pytest.mark.parametrize("level", [g.SQUEEZED, g.FROZEN, g.SHED, ""])
def test_who_is_to_stop_is_held_by_nothing(level: str) -> None:
    """Above its memory.high it would not even die of SIGKILL for a while."""
    done: list[tuple[Any, ...]] = []
    senses: Any = SimpleNamespace(
        psi=True,
        relax=lambda service, resource: done.append((service.name, resource)),
        freeze=lambda name, frozen: done.append((name, frozen)),
    )
    unit = SimpleNamespace(service=Service("web", ("/bin/x",)))
    node, loop = SimpleNamespace(units={"web": unit}), SimpleNamespace(now=lambda: 1.0)
    agent: Any = SimpleNamespace(loop=loop, node=node, emit=None)
    governing = Governing(agent, senses)
    governing.governor = g.Governor({(g.MEMORY, "web"): g.Grip(level)})
    governing.let_go("web")
    assert done == ([("web", g.MEMORY), ("web", False)] if level else [])
