"""The builder's own decisions, without making a package."""

from __future__ import annotations

import marshal
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from builder import bytecode, notices, pins, roff, stage, wheels
from builder.__main__ import main, source_date_epoch
from builder.stage import PACKAGING, REPOSITORY
from builder.targets import SYSTEM_LIBRARIES, TARGETS, dependencies

HASH = "a" * 64


def wheel(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_pins_are_read_over_lines_and_by_normalised_names() -> None:
    one = f"Py_Zmq==27.0 \\\n    --hash=sha256:{HASH} \\\n    --hash=sha256:{'b' * 64}\n"
    text = f"# made\n{one}\nloguru==1 --hash=sha256:{HASH}\n"
    found = pins.parse(text)
    assert [(pin.name, pin.version) for pin in found] == [("py-zmq", "27.0"), ("loguru", "1")]
    assert found[0].line == f"Py_Zmq==27.0 --hash=sha256:{HASH} --hash=sha256:{'b' * 64}"
    assert [pin.name for pin in pins.without(found, ["loguru"])] == ["py-zmq"]


@pytest.mark.parametrize("line", ["loguru", "loguru==1", "loguru>=1 --hash=sha256:" + HASH, "-r other.txt"])
def test_a_line_without_version_and_hash_is_no_pin(line: str) -> None:
    with pytest.raises(ValueError, match="not a pin with hashes"):
        pins.parse(line)


def test_every_dependency_of_the_program_is_pinned() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pinned = {pin.name for pin in pins.parse((PACKAGING / "requirements.txt").read_text())}
    names = {pins.normalised(each.split(">")[0]) for each in project["dependencies"]}
    assert names <= pinned
    assert set(SYSTEM_LIBRARIES) <= pinned


@pytest.mark.parametrize(
    ("name", "installed"),
    [
        ("zmq/sugar/socket.py", True),
        ("zmq/tests/test_a.py", False),
        ("zmq/__init__.pyi", False),
        ("nacl/py.typed", False),
        ("pyzmq.libs/libzmq-1.so.5", True),
        ("pydantic/v1/main.py", False),
        ("pydantic/v1x.py", True),
        ("psutil-7.dist-info/METADATA", True),
        ("psutil-7.dist-info/licenses/LICENSE", True),
        ("psutil-7.dist-info/RECORD", False),
        ("psutil-7.data/scripts/x", False),
    ],
)
def test_what_a_device_never_needs_is_left_out(name: str, installed: bool) -> None:
    assert wheels.wanted(name) is installed


def test_wheels_for_two_pythons_make_one_directory(tmp_path: Path) -> None:
    same = {"a/__init__.py": "x", "a-1.dist-info/METADATA": "Name: a\nVersion: 1\n\n# All about a\n"}
    one = wheel(tmp_path / "a-cp311.whl", same | {"a/_c.cpython-311-x.so": "1", "a-1.dist-info/RECORD": "1"})
    two = wheel(tmp_path / "a-cp313.whl", same | {"a/_c.cpython-313-x.so": "2", "a-1.dist-info/RECORD": "2"})
    wheels.merge([one, two], tmp_path / "made")
    names = {str(path.relative_to(tmp_path / "made")) for path in (tmp_path / "made").rglob("*") if path.is_file()}
    assert names == {"a/__init__.py", "a-1.dist-info/METADATA", "a/_c.cpython-311-x.so", "a/_c.cpython-313-x.so"}
    assert (tmp_path / "made/a-1.dist-info/METADATA").read_text() == "Name: a\nVersion: 1\n"
    assert wheels.tops([one, two]) == {"a/*", "a-1.dist-info/*"}


def test_wheels_that_differ_in_a_file_are_refused(tmp_path: Path) -> None:
    one, two = wheel(tmp_path / "one.whl", {"a.py": "1"}), wheel(tmp_path / "two.whl", {"a.py": "2"})
    with pytest.raises(wheels.WheelError, match=r"cannot put two\.whl beside the others: its a\.py is another"):
        wheels.merge([one, two], tmp_path / "made")


def test_byte_code_is_used_whatever_becomes_of_its_source_and_tells_the_device_s_path(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    source = tmp_path / "pack/mod.py"
    source.write_text('"""M"""\ndef f():\n    """F"""\n    return 42\nanswer = f()\nfound = [__doc__, f.__doc__]\n')
    assert bytecode.compile_all(tmp_path, "/usr/lib/x", [sys.executable]) == 1
    source.write_text("changed, and not looked at: the hash is not checked\n")
    (compiled,) = source.parent.glob("__pycache__/*.pyc")
    assert marshal.loads(compiled.read_bytes()[16:]).co_filename == "/usr/lib/x/pack/mod.py"  # noqa: S302
    program = f"import sys; sys.path = [{str(source.parent)!r}]; import mod; print(mod.answer, mod.found)"
    argv = [sys.executable, "-I", "-c", program]
    assert subprocess.run(argv, capture_output=True, text=True).stdout == "42 ['M', None]\n"


def test_a_source_that_does_not_compile_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def :\n")
    with pytest.raises(bytecode.CompileError, match="SyntaxError"):
        bytecode.compile_all(tmp_path, "/usr/lib/x", [sys.executable])


def test_troff_takes_nothing_of_a_text_for_its_own() -> None:
    assert roff.escaped(r".dir\n -x 'a'") == r"\&.dir\en \-x \(aqa\(aq"
    assert roff.escaped("'a") == r"\&\(aqa"
    assert roff.tagged(roff.bold("--a"), "") == ".TP\n\\fB\\-\\-a\\fR\n\\&"


def test_only_armhf_depends_on_the_device_s_libraries() -> None:
    for target in TARGETS:
        for kind in ("deb", "rpm"):
            assert all(bool(value) == bool(target.system) for value in dependencies(target, kind).values())


def test_an_older_debian_s_versions_are_inside_the_bounds_of_the_program() -> None:
    """What armhf takes from Debian 12."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    bounds = {
        pins.normalised(each.split(">")[0]): each.split(">=")[1].split(",")[0] for each in project["dependencies"]
    }
    debian12 = {"pyzmq": (24, 0), "msgpack": (1, 0, 3), "psutil": (5, 9, 4), "pynacl": (1, 5), "pyyaml": (6, 0)}
    for name, version in debian12.items():
        assert tuple(map(int, bounds[name].split("."))) <= version, name


def test_a_distribution_without_a_licence_text_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "x-1.dist-info"
    directory.mkdir()
    (directory / "METADATA").write_text("Metadata-Version: 2.1\nName: x\nVersion: 1\nLicense-Expression: MIT\n")
    with pytest.raises(ValueError, match="no licence text of x"):
        notices.component(directory, [], [], tmp_path)
    (tmp_path / "x.txt").write_text("Do what you want.\n\nBut ask.\n")
    found = notices.component(directory, ["ff"], ["x/*"], tmp_path)
    text = notices.copyright_file([found])
    assert "Files:\n usr/lib/edge-agent/x/*\nComment: x 1, \nCopyright: the authors of x\nLicense: MIT~x\n" in text
    assert " Do what you want.\n .\n But ask.\n" in text
    assert notices.sbom([found], "1", 0) == notices.sbom([found], "1", 0)


def test_the_time_of_a_build_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert source_date_epoch() == 1_700_000_000


@pytest.mark.parametrize("version", ["v1", "1.0-1", "1.0 beta", ""])
def test_a_version_that_no_package_can_have_is_refused(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version", version])
    assert "is not a version" in capsys.readouterr().err


def test_a_staged_tree_has_the_modes_and_times_of_no_one_s_umask(tmp_path: Path) -> None:
    stage.write(tmp_path / "a/file", "x", 0o600)
    stage.write(tmp_path / "a/program", "x", 0o700)
    stage.finish(tmp_path, 1000)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"a": 0o755, "file": 0o644, "program": 0o755}
    assert {path.stat().st_mtime for path in tmp_path.rglob("*")} == {1000.0}
