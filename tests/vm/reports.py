"""Carries pytest's results from the guest to the host, where each is shown and counted like one of the host's own.

In the guest: ``pytest -p tests.vm.reports --report-lines FILE``, one JSON object a line. On the host: publish().
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

PREFIX = "guest:"
"""In front of the node ids, as the same test may also have run on the host."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--report-lines", type=Path, metavar="FILE", help="write each report as a line of JSON")


def pytest_configure(config: pytest.Config) -> None:
    if path := config.getoption("--report-lines"):
        config.pluginmanager.register(Recorder(config, path.open("w")), "report-lines")


class Recorder:
    """Writes what a person would want to know: each test's phases, and modules that failed or were skipped whole."""

    def __init__(self, config: pytest.Config, file: IO[str]) -> None:
        self.config = config
        self.file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.write(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self.write(report)

    def pytest_unconfigure(self) -> None:
        self.file.close()

    def write(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        # Flushed by line: what was found is there even when the guest dies.
        print(json.dumps(data, default=str), file=self.file, flush=True)


def read(config: pytest.Config, text: str) -> Iterator[pytest.TestReport | pytest.CollectReport]:
    """The reports in a file's text, their node ids prefixed. A last line cut short is left out."""
    for line in text.splitlines(keepends=True):
        if not line.endswith("\n"):
            return
        report = config.hook.pytest_report_from_serializable(config=config, data=json.loads(line))
        report.nodeid = PREFIX + report.nodeid
        if isinstance(report.longrepr, list):  # a skip's (file, line, reason), which JSON has no tuples for
            report.longrepr = tuple(report.longrepr)
        if isinstance(report, pytest.TestReport):
            file, number, name = report.location
            report.location = (PREFIX + file, number, name)
        yield report


def publish(session: pytest.Session, reports: Sequence[pytest.TestReport | pytest.CollectReport]) -> None:
    """Show and count the reports in this session: a failed one fails it."""
    session.testscollected += len({report.nodeid for report in reports if isinstance(report, pytest.TestReport)})
    hook = session.config.hook
    for report in reports:
        if isinstance(report, pytest.TestReport):
            hook.pytest_runtest_logreport(report=report)
        else:
            hook.pytest_collectreport(report=report)


def passed(reports: Iterable[pytest.TestReport | pytest.CollectReport], directory: str) -> list[str]:
    """Node ids of the tests below ``directory`` that ran and passed."""
    return [
        report.nodeid
        for report in reports
        if isinstance(report, pytest.TestReport)
        and report.when == "call"
        and report.passed
        and report.nodeid.startswith(f"{PREFIX}{directory}/")
    ]


def failed(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> list[str]:
    """Node ids of what failed, in whatever phase."""
    return list(dict.fromkeys(report.nodeid for report in reports if report.failed))
