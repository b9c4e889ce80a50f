"""kill -9 of the agent where services live in cgroups."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.node import harness
from tests.node.harness import Node, with_argument
from tests.node.test_adoption import kill_again_and_again, twenty

# Emulated, one takes about two seconds. The README's 200: EDGE_AGENT_TEST_KILLS=200 python -m tests.vm.lab run -- ...
TRIES = int(os.environ.get("EDGE_AGENT_TEST_KILLS", "25"))


@pytest.fixture
def node() -> Iterator[Node]:
    yield from harness.node()


def test_killed_at_random_moments_it_restarts_nothing_doubles_nothing_orphans_nothing(node: Node) -> None:
    plan = twenty(node, "cgroup2")
    node.start("--plan", plan)
    services = node.services_cgroup()
    kill_again_and_again(node, lambda: node.run_plan(plan, services.parent / "agent"), TRIES)
    assert {path.name for path in services.iterdir() if path.is_dir()} == {f"s{i:02}" for i in range(20)}
    assert node.stop() == 0
    assert not with_argument(node.number)
    assert not services.exists()
