"""Tests that boot a guest are marked ``vm``. Where the lab's tools are missing they are skipped, and say so.

EDGE_AGENT_VM=required turns that skip into a failure: ``make test`` sets it after installing the tools.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest

from . import tools
from .errors import LabError
from .lab import Guest, Lab
from .reports import publish
from .target import Target

GUEST_REPORTS = pytest.StashKey[list[pytest.TestReport | pytest.CollectReport]]()
"""On a host test: the guest's reports, published once the host test itself is done."""


@pytest.fixture(scope="session")
def lab_tools() -> None:
    """Skips when the lab cannot work here."""
    try:
        tools.require(Target())
    except LabError as error:
        if os.environ.get("EDGE_AGENT_VM") == "required":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def guest(lab_tools: None) -> Iterator[Guest]:
    """One guest under systemd for the tests of a module; in the end it must shut down in order."""
    with Lab().boot() as booted:
        yield booted
        booted.power_off()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Between two tests, when nothing is captured: show what the guest found."""
    handled = yield
    if GUEST_REPORTS in item.stash:
        reports = item.stash[GUEST_REPORTS]
        publish(item.session, reports)
    return handled
