"""Which file a profile is, what it extends, and files that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_agent.demand import Amount, Profile
from edge_agent.profile import Directories, ProfileError, load

from .profiles import FakeSystem, load_file

SHIPPED = Path(__file__).parent.parent.parent / "profiles"


@pytest.fixture
def config(tmp_path: Path) -> Directories:
    """A configuration directory with nothing in it."""
    (tmp_path / "etc" / "profiles").mkdir(parents=True)
    return Directories(str(tmp_path / "etc"), "/data", "/run", "/log")


def write(directories: Directories, name: str, text: str) -> Path:
    path = Path(directories.config, name)
    path.write_text(text)
    return path


def by(directories: Directories, name: str | None = None, config: str | None = None, **environ: str) -> Profile:
    return load(config=config, name=name, flags={}, environ=environ, directories=directories, system=FakeSystem())


def message(directories: Directories, name: str | None = None, config: str | None = None, **environ: str) -> str:
    with pytest.raises(ProfileError) as caught:
        by(directories, name, config, **environ)
    assert len(caught.value.problems) == 1
    return str(caught.value).replace(directories.config, "ETC").replace(str(SHIPPED), "SHIPPED")


def test_a_name_is_looked_up_in_the_configuration_first(config: Directories) -> None:
    assert by(config, "edge").source == str(SHIPPED / "edge.yaml")
    own = write(config, "edge.yml", "services: {}")
    assert by(config, "edge").source == str(own)
    better = write(config, "profiles/edge.yaml", "services: {}")
    assert by(config, "edge").source == str(better)


@pytest.mark.parametrize("name", ["single-node", "single_node"])
def test_hyphen_and_underscore_are_the_same(config: Directories, name: str) -> None:
    profile = by(config, name)
    assert (profile.name, profile.source) == ("single-node", str(SHIPPED / "single-node.yaml"))


def test_what_chooses_the_profile(config: Directories) -> None:
    mine = write(config, "mine.yaml", "services: {}")
    assert by(config, config=str(mine), EDGE_AGENT_CONFIG="/nonsuch").name == "mine"
    assert by(config, "edge", BLACKHOLE_CONFIG="/nonsuch").name == "edge"
    assert by(config, BLACKHOLE_CONFIG=str(mine), EDGE_AGENT_PROFILE="edge").name == "mine"
    assert by(config, EDGE_AGENT_PROFILE="minimal").name == "minimal"
    with pytest.raises(ProfileError, match="none was chosen"):
        by(config)
    write(config, "config.yaml", "services: {}")
    assert by(config).name == "config"


def test_an_unknown_name(config: Directories) -> None:
    write(config, "profiles/kiosk.yaml", "services: {}")
    assert message(config, "egde") == "--profile: 'egde': unknown profile; fix: did you mean 'edge'?"
    assert message(config, "zzz") == (
        "--profile: 'zzz': unknown profile; "
        "fix: use one of development, edge, example, kiosk, minimal, nightly, single-node"
    )
    assert message(config, "../etc/passwd") == (
        "--profile: '../etc/passwd': not the name of a profile; fix: give a path with --config FILE"
    )
    assert message(config, EDGE_AGENT_PROFILE="egde").startswith("EDGE_AGENT_PROFILE: 'egde': unknown profile")


def test_a_file_and_a_name_at_once(config: Directories) -> None:
    assert message(config, "edge", "x.yaml") == (
        "--config: 'x.yaml': cannot be given together with --profile; fix: keep one of them"
    )


def test_files_that_cannot_be_read(config: Directories, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    expected = {
        "none.yaml": "no such file; fix: check the path",
        "etc": "it is a directory; fix: name the file in it",
        "fifo": "it is not a regular file; fix: save it as a file",
        "loop": "its symbolic links form a loop; fix: check the links",
        "x" * 300: "its path is too long; fix: check the path",
    }
    for name, why in expected.items():
        path = str(tmp_path / name)
        assert message(config, config=path) == f"{path}: cannot read profile: {why}".replace(config.config, "ETC")


def test_a_file_without_permission(config: Directories, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = write(config, "mine.yaml", "services: {}")

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root reads everything, so mode bits prove nothing here
    assert message(config, config=str(mine)) == (
        "ETC/mine.yaml: cannot read profile: permission denied; fix: run as root, or make it readable"
    )


def test_extends_merges_and_keeps_places(config: Directories) -> None:
    write(config, "profiles/base.yaml", "deployment: {resources: {total_memory: 1GB}}\nservices:\n  node: {nice: 1}\n")
    mine = write(config, "mine.yaml", "extends: base\nservices:\n  node: {importance: 7}\n  s: {command: [a, b]}\n")
    profile = load_file(mine, directories=config)
    assert profile.memory_total == Amount(10**9)
    assert [(each.service.name, each.service.nice, each.service.importance) for each in profile.demands] == [
        ("node", 1, 7),
        ("s", 0, 50),
    ]
    write(config, "profiles/base.yaml", "\nservices:\n  node: {nice: 99}\n")
    assert message(config, config=str(mine)).startswith("ETC/profiles/base.yaml:3: services.node.nice: '99'")


def test_extends_a_list_of_paths_the_later_wins(config: Directories) -> None:
    Path(config.config, "parts").mkdir()
    write(config, "parts/a.yaml", "services: {s: {command: [a, x], nice: 1, importance: 1}}")
    write(config, "parts/b.yaml", "services: {s: {command: [b], nice: 2}}")
    mine = write(config, "mine.yaml", "extends: [parts/a.yaml, ./parts/b.yaml]\nservices: {s: {importance: null}}")
    made = load_file(mine, directories=config).demands[0].service
    assert (made.argv, made.nice, made.importance) == (("/usr/bin/b",), 2, 50)


def test_null_takes_an_inherited_service_away(config: Directories) -> None:
    mine = write(
        config, "mine.yaml", "extends: edge\nservices: {analytics: null, telemetry: ~, storage: {enabled: no}}"
    )
    profile = load_file(mine, directories=config)
    assert [(each.service.name, each.enabled) for each in profile.demands] == [
        ("identity", True),
        ("storage", False),
        ("node", True),
    ]


def test_a_profile_may_extend_the_shipped_one_of_its_own_name(config: Directories) -> None:
    write(config, "profiles/edge.yaml", "extends: edge\ndeployment: {resources: {total_memory: 3GB}}")
    profile = by(config, "edge")
    assert profile.memory_total == Amount(3 * 10**9)
    assert len(profile.demands) == 5


def test_notes_say_the_file_of_what_is_inherited(config: Directories) -> None:
    write(config, "base.yaml", "\nperformance: {grpc: {}}\nservices: {node: {placement: any}}")
    mine = write(config, "mine.yaml", "extends: base.yaml\nservices:\n  node: {replicas: 2}")
    notes = load_file(mine, directories=config).not_acted_on
    base = f"{config.config}/base.yaml"
    assert notes == (
        f"services.node.placement ({base}:3)",
        "services.node.replicas (line 3)",
        f"performance.grpc ({base}:2)",
    )


@pytest.mark.parametrize("name", ["b.yaml", "b"])
def test_cycles(config: Directories, name: str) -> None:
    write(config, "b.yaml", "extends: mine.yaml")
    mine = write(config, "mine.yaml", f"services: {{}}\nextends: {name}")
    assert message(config, config=str(mine)) == (
        "ETC/b.yaml:1: extends: 'ETC/mine.yaml': extends itself: ETC/mine.yaml -> ETC/b.yaml -> ETC/mine.yaml; "
        "fix: remove one of the extends"
    )


def test_a_name_that_only_finds_the_file_itself(config: Directories) -> None:
    mine = write(config, "mine.yaml", "extends: mine")
    assert message(config, config=str(mine)) == (
        "ETC/mine.yaml:1: extends: 'mine': extends itself: ETC/mine.yaml -> ETC/mine.yaml; "
        "fix: remove one of the extends"
    )


def test_mistakes_in_extends(config: Directories) -> None:
    for written, why in {
        "egde": "'egde': unknown profile; fix: did you mean 'edge'?",
        "no.yaml": "'ETC/no.yaml': cannot read profile: no such file; fix: check the path",
        "{a: b}": "expected the name of a profile, a path, or a list of them; fix: write extends: edge",
        "": "expected the name of a profile, a path, or a list of them; fix: write extends: edge",
    }.items():
        mine = write(config, "mine.yaml", f"services: {{}}\nextends: {written}")
        assert message(config, config=str(mine)) == f"ETC/mine.yaml:2: extends: {why}"


def test_extends_that_fan_out_are_bounded(config: Directories) -> None:
    for level in range(12):
        write(config, f"l{level}.yaml", f"extends: [{', '.join([f'l{level + 1}.yaml'] * 10)}]")
    write(config, "l12.yaml", "services: {}")
    assert "more than 64 files make up this profile" in message(config, config=str(Path(config.config, "l0.yaml")))
