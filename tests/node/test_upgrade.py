"""Another release takes over: newer, then the older one again. No service notices."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import edge_agent
from edge_agent.cli.resident import command, import_paths

from .harness import Node
from .test_adoption import identities, twenty

TRIES = int(os.environ.get("EDGE_AGENT_TEST_RESTARTS", "1"))


def newer(node: Node) -> Path:
    """A release whose services and units have a field more than those of this one."""
    tree = node.root / "newer"
    shutil.copytree(Path(edge_agent.__file__).parent, tree / "edge_agent", ignore=shutil.ignore_patterns("__pycache__"))
    field = "    added: {}\n\n\n"
    for name, pattern, put in (
        ("__init__.py", r"__version__ = .*", '__version__ = "99.0"'),
        ("model.py", r"PLAN_VERSION = \d+", "PLAN_VERSION = 99"),
        ("model.py", r"(?=class Plan\(Record\))", field.format('str = "new"')),
        ("lifecycle.py", r"(?=class Start\(Record\))", field.format("int = 0")),
    ):
        path = tree / "edge_agent" / name
        text, count = re.subn(pattern, put, path.read_text())
        assert count == 1, name
        path.write_text(text)
    return tree


def run(node: Node, tree: Path | None = None) -> None:
    """The agent of this release, or of the one in ``tree``, with the plan that was committed."""
    words = ["--run-dir", str(node.run_dir), "--data-dir", str(node.data_dir), "--log-dir", str(node.log_dir)]
    argv = command(words)
    if tree is not None:
        argv = [word.replace(repr(import_paths()), repr([str(tree), *import_paths()[1:]])) for word in argv]
    node._spawn(argv)


def test_there_and_back_costs_no_service(node: Node) -> None:
    tree = newer(node)
    node.run_plan(twenty(node, "sampling"))
    node.until_state("ready")
    before, version = identities(node), node.status()["agent"]["version"]
    for _ in range(TRIES):
        node.kill()
        run(node, tree)
        assert node.status()["agent"]["version"] == "99.0"
        node.until_state("ready")
        assert identities(node) == before
        assert not node.events("set-aside")
        node.call("switch", plan=node.call("plan")["plan"])  # to the same: it is committed as this release has it
        assert node.status()["degraded"] is None

        node.kill()
        run(node)
        assert node.status()["agent"]["version"] == version
        node.until_state("ready")
        assert identities(node) == before
        assert not node.events("set-aside")
        assert "a newer release wrote it: version 99" in node.status()["degraded"]
        said = [event["text"] for event in node.events("release")]
        assert any("a newer release started s00, s01" in text for text in said)
        assert any("known only in part" in text for text in said)
        assert all(entry["restarts"] == 0 for entry in node.status()["services"].values())
