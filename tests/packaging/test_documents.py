"""Man pages and completions: whole, and readable by the programs they are for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from builder import completions, manual
from builder.stage import PACKAGING

from edge_agent.cli import exits
from edge_agent.cli.context import DEFAULT
from edge_agent.cli.parsing import VERBS, make_parser

EXAMPLE = "services:\n  web:\n    command: 'web -p 80' # \\n\n"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return manual.pages(PACKAGING / "manual", "1.2.3", 1_700_000_000, EXAMPLE)


def rendered(name: str, text: str, directory: Path) -> str:
    file = directory / name
    file.write_text(text)
    argv = ["man", "--warnings", "--encoding=UTF-8", "--local-file", str(file)]
    environment = {"MANWIDTH": "200", "MAN_KEEP_FORMATTING": "", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == ""
    return done.stdout


def test_the_program_s_page_has_every_verb_option_and_exit_code(pages: dict[str, str], tmp_path: Path) -> None:
    shown = rendered("edge-agent.8", pages["edge-agent.8"], tmp_path)
    assert "@" not in shown
    for verb in VERBS:
        if verb != DEFAULT:
            assert f"\n   {verb}" in shown
        for action in make_parser(verb)._actions:
            assert all(option in shown for option in action.option_strings)
    assert all(meaning[1:] in shown for meaning in exits.MEANING.values())


def test_every_key_of_a_profile_has_a_sentence_and_no_sentence_is_about_nothing() -> None:
    """A new key needs a line in packaging/manual/profile-keys.yaml."""
    texts = yaml.safe_load((PACKAGING / "manual/profile-keys.yaml").read_text())
    assert {path for path, _ in manual.profile_keys()} == texts.keys()


def test_the_format_s_page_has_every_key(pages: dict[str, str], tmp_path: Path) -> None:
    shown = rendered("edge-agent-profile.5", pages["edge-agent-profile.5"], tmp_path)
    assert "@" not in shown
    assert all(f"\n       {path}\n" in shown for path, _ in manual.profile_keys())
    assert "command: 'web -p 80' # \\n" in shown
    assert "deployment.switch_timeout\n" in shown
    assert "Default: 60." in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_can_read_their_completions(shell: str, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text(completions.scripts()[completions.PLACES[shell]])
    done = subprocess.run([shell, "-n", file], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


BASH = """
source "$1"; shift
COMP_WORDS=(edge-agent "$@"); COMP_CWORD=$#
_shtab_edge_agent edge-agent "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
echo "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["st"], "status start stop"),
        (["plan", "--enf"], "--enforcement"),
        (["plan", "--enforcement", ""], "auto cgroup2 sampling none"),
        (["service", "--name", ""], "identity storage node telemetry analytics timekeeper"),
    ],
)
def test_bash_offers_what_may_come_next(words: list[str], offered: str, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text(completions.scripts()[completions.PLACES["bash"]])
    done = subprocess.run(["bash", "-c", BASH, "bash", file, *words], capture_output=True, text=True)
    assert done.stdout.split() == offered.split(), done.stderr


def test_fish_offers_what_may_come_next(tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text(completions.scripts()[completions.PLACES["fish"]])
    argv = ["fish", "--no-config", "-c", f'source {file}; complete --do-complete "edge-agent st"']
    done = subprocess.run(argv, capture_output=True, text=True, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert {line.partition("\t")[0] for line in done.stdout.splitlines()} == {"status", "start", "stop"}, done.stderr


def test_the_names_of_services_come_from_the_status(tmp_path: Path) -> None:
    status = (
        '{\n  "agent": {\n    "pid": 1\n  },\n  "services": {\n    "api-2": {\n      "x": {\n      }\n    }\n  }\n}'
    )
    program = tmp_path / "edge-agent"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{status}\nEND\n")
    program.chmod(0o755)
    argv = ["sh", "-c", completions.SERVICES]
    done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert done.stdout.split() == ["api-2"]
