"""Runs the tests that need a real kernel inside a guest; each of their results counts here as it did there."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import GUEST_REPORTS
from .lab import Lab
from .reports import failed, passed, read

DIRECTORIES = ["tests/guest", "tests/contract"]
TIMEOUT = 1200  # seconds for pytest in the guest, a guard against hanging: then it is interrupted and says where it was

pytestmark = pytest.mark.vm


def test_the_guests_tests_pass(request: pytest.FixtureRequest, lab_tools: None, tmp_path: Path) -> None:
    lines = Path("/var/tmp/reports/lines.json")
    command = ["timeout", "--signal=INT", "--kill-after=30", str(TIMEOUT)]
    # hypothesis's plugin imports all of hypothesis at the end of every run; its tests work without the plugin.
    command += ["python3", "-m", "pytest", "-p", "no:hypothesispytest", "-p", "tests.vm.reports"]
    command += [f"--report-lines={lines}", *DIRECTORIES]
    with Lab(memory_mib=3072).boot() as guest:
        guest.check(["mkdir", str(lines.parent)])
        guest.check("python3 -m compileall -q edge_agent")  # as a package has it; sandboxed services cannot write it
        result = guest.run(command, timeout=TIMEOUT + 60)
        text = (guest.fetch(str(lines.parent), tmp_path) / lines.name).read_text()
    reports = list(read(request.config, text))
    request.node.stash[GUEST_REPORTS] = reports
    tail = result.output[-4000:]
    assert result.code == 0, f"pytest ended with {result.code} in the guest; failed: {failed(reports)}\n{tail}"
    assert passed(reports, "tests/guest"), f"no test of tests/guest ran in the guest:\n{tail}"
    contracts = passed(reports, "tests/contract")
    assert any("cgroup2" in name for name in contracts), f"no contract was tested on real cgroups:\n{tail}"
