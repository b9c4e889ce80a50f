"""Tests that boot a guest are marked ``vm``. Where the lab's tools are missing they are skipped, and say so.

EDGE_AGENT_VM=required turns that skip into a failure: ``make test`` sets it after installing the tools.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator

import pytest

from .image import tool_environment
from .lab import Guest, Lab
from .reports import publish

TOOLS = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs", "cpio", "setpriv")

GUEST_REPORTS = pytest.StashKey[list[pytest.TestReport | pytest.CollectReport]]()
"""On a host test: the guest's reports, published once the host test itself is done."""


@pytest.fixture(scope="session")
def tools() -> None:
    """Skips when the lab cannot work here."""
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=tool_environment()["PATH"]) is None]
    if not lacking:
        return
    said = f"the virtual machine lab lacks {', '.join(lacking)}; fix: tests/vm/install"
    if os.environ.get("EDGE_AGENT_VM") == "required":
        pytest.fail(said)
    pytest.skip(said)


@pytest.fixture(scope="module")
def guest(tools: None) -> Iterator[Guest]:
    """One guest under systemd for the tests of a module."""
    with Lab().boot() as booted:
        yield booted


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Between two tests, when nothing is captured: show what the guest found."""
    handled = yield
    if GUEST_REPORTS in item.stash:
        publish(item.session, item.stash[GUEST_REPORTS])
    return handled
