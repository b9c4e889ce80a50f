"""simulate and record: words, errors with file and line, what is shown and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_agent.cli import exits
from edge_agent.cli.simulate import clock
from edge_agent.looks import Machine, Raw, Reading

from .fakes import MIB, FakeAgent, Run, in_turn

PROFILE = """
deployment: {mode: edge, resources: {total_memory: 800MiB, total_cpu: 2.0}}
services:
  web: {command: /bin/sleep 1, importance: essential, resources: {memory: {request: 100MiB}}}
  leak: {command: /bin/sleep 1, importance: heavy, resources: {memory: {request: 100MiB}}}
"""
TRACE = """\
{"edge-agent-trace": 1, "kind": "written", "machine": 1e9, "cpus": 2, "system": 1e8}
{"at": 0, "wants": {"web": {"memory": 8e7}, "leak": {"memory": 1e8, "grows": 1e7}}}
{"at": 90, "wants": {"leak": {"memory": 1e8}}}
{"at": 1800}
"""


@pytest.fixture
def files(home: Path) -> tuple[str, str]:
    profile, path = home / "sim.yaml", home / "leak.trace"
    profile.write_text(PROFILE)
    path.write_text(TRACE)
    return str(profile), str(path)


def test_a_policy_is_tried(run: Run, files: tuple[str, str]) -> None:
    result = run("simulate", *files)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == f"profile sim ({files[0]}), written trace {files[1]}, 00:30:00.00"
    assert lines[2].split("  ")[1].startswith("squeezed leak: memory ")
    assert any(line.partition("  ")[2].startswith("shed leak: ") for line in lines)
    assert lines[-1].split()[0] == "leak"
    assert run("simulate", *files).out == result.out


def test_as_json(run: Run, files: tuple[str, str]) -> None:
    told = json.loads(run("simulate", *files, "--json").out)
    assert [each["kind"] for each in told["decisions"]] == ["squeezed", "shed", "returns"]
    assert set(told["decisions"][0]) == {"at", "kind", "service", "resource", "text"}
    assert told["services"]["leak"]["shed"] == 1
    assert (told["profile"], told["seconds"]) == ("sim", 1800)


def test_the_profile_is_named_as_for_plan_or_first(run: Run, home: Path, files: tuple[str, str]) -> None:
    (home / "config" / "profiles").mkdir()
    (home / "config" / "profiles" / "kept.yaml").write_text(PROFILE)
    expected = run("simulate", "kept", files[1]).out
    assert "profile kept" in expected
    assert run("simulate", files[1], "--profile", "kept").out == expected
    assert run("simulate", files[1], "--config", files[0]).code == 0
    both = run("simulate", "kept", files[1], "--profile", "kept")
    assert both.code == exits.USAGE
    assert "give one profile, then one trace" in both.err
    assert run("simulate", files[1]).code == exits.CONFIGURATION, "nothing says which"
    assert run("simulate").code == exits.USAGE


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('{"at": 5, "wants": {"lek": {}}}', "5: the profile has no service 'lek'; fix: use one of web, leak"),
        ('{"at": 1801, "wants": 3}', "5: wants is not a JSON object; fix: "),
        ('{"at": 1}', "5: at is 1, before the 1800 of an earlier line; fix: "),
        ("{", "5: it is not JSON"),
    ],
)
def test_errors_have_file_and_line_and_nothing_is_shown(run: Run, files: tuple[str, str], line: str, text: str) -> None:
    if "lek" in line:
        line = line.replace("5", "1805")
    Path(files[1]).write_text(TRACE + line + "\n")
    result = run("simulate", *files)
    assert (result.code, result.out) == (exits.CONFIGURATION, "")
    assert result.err.startswith(f"edge-agent: cannot simulate: {files[1]}:{text}")


def test_a_missing_trace_and_a_broken_profile(run: Run, home: Path, files: tuple[str, str]) -> None:
    missing = run("simulate", files[0], str(home / "none"))
    assert missing.code == exits.CONFIGURATION
    assert "none: No such file or directory; fix: name a trace" in missing.err
    Path(files[0]).write_text("services: 3")
    assert run("simulate", *files).code == exits.CONFIGURATION


def test_help_has_the_format(run: Run) -> None:
    assert '{"at": 3600, "wants": {"batch": {}}, "system": 3e8}' in run("simulate", "--help").out


def test_clock_counts_hours_on() -> None:
    assert [clock(seconds) for seconds in (0, 59.999, 3661.5, 72 * 3600)] == [
        "00:00:00.00",
        "00:01:00.00",
        "01:01:01.50",
        "72:00:00.00",
    ]


# -- record ------------------------------------------------------------------------------------------------------------


def answer(at: float, some: int, cpu: int) -> dict[str, Any]:
    reading = Reading(
        at, Machine(some, 0, 90 * MIB, 1000 * MIB, 0), Raw(90 * MIB), {"web": Raw(80 * MIB, cpu=cpu)}, 800 * MIB, True
    )
    return {
        **reading._asdict(),
        "machine": {**reading.machine._asdict(), "of-a-newer-agent": 1},
        "all": Raw(90 * MIB)._asdict(),
        "services": {"web": reading.services["web"]._asdict()},
    }


def test_a_record_is_a_header_and_a_look_a_line(run: Run, agent: FakeAgent, home: Path) -> None:
    agent.answers["look"] = in_turn(answer(10.0, 0, 0), answer(10.5, 250_000, 100_000), answer(11.0, 250_000, 100_000))
    path = home / "out.trace"
    result = run("record", "--output", str(path), "--for", "0.2s", "--interval", "100ms")
    assert (result.code, result.err) == (0, "")
    header, first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (header["edge-agent-trace"], header["kind"], header["machine"], header["profile"]) == (
        1,
        "recorded",
        1000 * MIB,
        "edge",
    )
    assert (first["at"], first["some"], first["free"], first["loads"]["web"]["cpu"]) == (0.5, 0.5, 710 * MIB, 200)
    assert (second["at"], second["some"]) == (1.0, 0.0)
    (home / "sim.yaml").write_text(PROFILE)
    assert run("simulate", str(home / "sim.yaml"), str(path)).out.splitlines()[2].endswith("nothing to decide")


def test_what_cannot_be_recorded(run: Run, agent: FakeAgent, home: Path) -> None:
    agent.answers["look"] = answer(1.0, 0, 0)
    path = home / "out.trace"
    path.write_text("precious")
    assert run("record", "--output", str(path)).err.endswith("exists; fix: remove it, or name another\n")
    assert path.read_text() == "precious"
    for word in ("2s", "50ms"):
        assert run("record", "--output", str(home / "x"), "--interval", word).code == exits.USAGE
    assert run("record", "--output", str(home / "x"), "--for", "soon").code == exits.USAGE
    assert run("record").code == exits.USAGE
    assert run("record", "--output", str(home / "no" / "x")).code == exits.FAILED
    assert not (home / "x").exists()


def test_without_an_agent_nothing_is_recorded(run: Run, home: Path) -> None:
    assert run("record", "--output", str(home / "x")).code == exits.NO_AGENT
    assert not (home / "x").exists()
