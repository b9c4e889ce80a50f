"""The lab's parts that need no guest: where packages come from, frames, the cache, reports."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import image as image_module
from . import tools
from .channel import LIMIT, STDOUT, Decoder, frame, frames
from .errors import LabError
from .mirror import Source, configured_sources, deb822_sources, guest_sources, one_line_sources
from .payload import PROJECT, check_abi, copy_tree, needed_distributions
from .target import BOARDS, Target, parse

# -- mirrors ---------------------------------------------------------------------------------------------------------

DEBIAN_SOURCES = """\
Types: deb
# http://snapshot.debian.org/archive/debian/20250520T000000Z
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.example/debian-security
Suites: trixie-security
Components: main
Signed-By:
 /usr/share/keyrings/debian-archive-keyring.gpg
"""
FOREIGN_SOURCES = """\
Types: deb
URIs: https://deb.nodesource.com/node_20.x
Suites: nodistro
Components: main
Signed-By: /usr/share/keyrings/nodesource.gpg
"""
FOREIGN_LIST = (
    "deb [signed-by=/usr/share/keyrings/cloud.google.gpg] https://packages.cloud.google.com/apt cloud-sdk main\n"
)
WANTED = """\
deb [signed-by=/k.gpg] {archive} bookworm main
deb [signed-by=/k.gpg] {archive} bookworm-updates main
deb [signed-by=/k.gpg] {security} bookworm-security main
"""


def test_the_guests_sources_are_this_machines_debian_mirrors_and_nothing_foreign(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/debian.sources").write_text(DEBIAN_SOURCES)
    (tmp_path / "sources.list.d/google-cloud-sdk.list").write_text(FOREIGN_LIST)
    (tmp_path / "sources.list.d/nodesource.sources").write_text(FOREIGN_SOURCES)
    (tmp_path / "sources.list.d/old.sources.disabled").write_text(DEBIAN_SOURCES.replace("mirror", "old"))
    assert guest_sources(configured_sources(tmp_path), "bookworm", "/k.gpg") == WANTED.format(
        archive="http://mirror.example/debian", security="http://mirror.example/debian-security"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# deb http://old.example/debian bookworm main\n",
        "deb-src http://mirror.example/debian bookworm main\n",
        "deb cdrom:[Debian GNU/Linux 12]/ bookworm main\n",
        "deb file:/srv/debian bookworm main\n",
        FOREIGN_LIST,
    ],
)
def test_without_a_usable_mirror_debians_own_is_taken(tmp_path: Path, text: str) -> None:
    (tmp_path / "sources.list").write_text(text)
    assert guest_sources(configured_sources(tmp_path), "bookworm", "/k.gpg") == WANTED.format(
        archive="http://deb.debian.org/debian", security="http://deb.debian.org/debian-security"
    )


def test_an_old_machine_with_security_on_another_path_and_backports() -> None:
    text = """\
deb http://ftp.example/debian/ buster main contrib
deb [arch=amd64 signed-by=/x/debian-archive-keyring.gpg] http://security.example/ buster/updates-security main
deb http://backports.example/debian buster-backports main
"""
    found = list(one_line_sources(text))
    assert found[1] == Source("http://security.example/", "buster/updates-security", "/x/debian-archive-keyring.gpg")
    assert guest_sources(found, "bookworm", "/k.gpg") == WANTED.format(
        archive="http://ftp.example/debian/", security="http://security.example/"
    )


def test_a_disabled_deb822_paragraph_is_left_out() -> None:
    assert list(deb822_sources("Enabled: no\n" + FOREIGN_SOURCES)) == []
    assert [source.suite for source in deb822_sources(DEBIAN_SOURCES)] == [
        "trixie",
        "trixie-updates",
        "trixie-security",
    ]


# -- the channel -----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from([b"O", b"E", b"X"]), st.binary(max_size=300))), st.data())
def test_frames_survive_any_cut(sent: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    stream = b"".join(frame(kind, body) for kind, body in sent)
    decoder, received = Decoder(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += decoder.feed(stream[:size])
        stream = stream[size:]
    assert received == sent


def test_long_data_is_cut_into_frames_and_a_longer_frame_is_refused() -> None:
    data = os.urandom(LIMIT * 2 + 5)
    received = Decoder().feed(frames(STDOUT, data))
    assert [len(body) for _, body in received] == [LIMIT, LIMIT, 5]
    assert b"".join(body for _, body in received) == data
    with pytest.raises(ValueError, match="the limit is"):
        frame(STDOUT, data)
    with pytest.raises(ValueError, match="the limit is"):
        Decoder().feed(b"O" + (LIMIT + 1).to_bytes(4, "big"))


# -- the cache -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_VM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class FakeBuild:
    """In the place of a minute's work: counts, and leaves a directory as the real one does."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, target: Target, cache: Path, final: Path) -> None:
        self.times += 1
        work = cache / ".build-fake"
        work.mkdir()
        (work / "disk.img").write_text("disk")
        work.rename(final)


def test_an_image_is_built_once_and_a_leftover_of_a_killed_builder_is_removed(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / ".build-killed").mkdir(parents=True)
    build = FakeBuild()
    monkeypatch.setattr(image_module, "build", build)
    first = image_module.image(Target())
    assert image_module.image(Target()) == first
    assert first.disk.read_text() == "disk"
    assert build.times == 1
    assert not (cache / ".build-killed").exists()


def test_another_recipe_is_another_image_and_so_is_another_machine(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_module, "build", FakeBuild())
    targets = [Target(), Target("trixie"), Target("bookworm", "arm64"), Target("trixie", "arm64")]
    first = [image_module.image(target).disk for target in targets]
    monkeypatch.setattr(image_module, "packages", lambda _architecture: ["systemd"])
    assert len({*first, image_module.image(Target()).disk}) == 5


def test_a_machine_is_called_by_its_suite_and_architecture() -> None:
    assert parse("trixie-arm64") == Target("trixie", "arm64")
    assert parse("bookworm") == Target()
    assert parse(str(Target("bookworm", "arm64"))) == Target("bookworm", "arm64")
    for word in ("sid", "bookworm-riscv64", ""):
        with pytest.raises(ValueError, match="is no machine of the lab"):
            parse(word)
    assert "linux-image-cloud-arm64" in image_module.packages(Target(architecture="arm64"))
    (path,) = image_module.files(Target("trixie")).keys() - image_module.FILES.keys()
    assert "/python3.13/" in path


def test_a_kernel_that_unpacks_itself_is_unpacked_for_qemu() -> None:
    kernel = b"the kernel" * 100
    packed = gzip.compress(kernel)
    head = b"MZ\0\0zimg" + (64).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + b"\0" * 8
    assert image_module.bootable(head + b"gzip".ljust(40, b"\0") + packed + b"the rest") == kernel
    assert image_module.bootable(kernel) == kernel
    with pytest.raises(LabError, match="compressed by zstd"):
        image_module.bootable(head + b"zstd".ljust(40, b"\0") + packed)


def test_compiled_packages_of_another_machine_are_not_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match=r"CPython 3\.13 on aarch64.*fix: boot it without the project"):
        check_abi(Target("trixie", "arm64"))


def test_a_failed_build_leaves_nothing_that_could_be_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(target: Target, root: Path, work: Path, log: Path) -> None:
        root.mkdir()
        raise LabError("cannot install Debian packages: the mirror is down")

    monkeypatch.setattr(image_module, "install_packages", fail)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(LabError, match="the mirror is down"):
        image_module.image(Target())
    assert [entry.name for entry in cache.iterdir()] == ["lock"]


def test_building_without_root_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match=r"not root.*fix: sudo"):
        image_module.image(Target())


def test_only_what_nobody_used_for_a_month_is_removed(cache: Path) -> None:
    old, fresh, foreign = cache / ("a" * 16), cache / ("b" * 16), cache / "somebody-elses"
    for directory in (old, fresh, foreign):
        directory.mkdir(parents=True)
    site = cache / f"site-{'c' * 16}.img"
    site.touch()
    now = fresh.stat().st_mtime
    for path in (old, foreign, site):
        os.utime(path, (now - image_module.UNUSED_FOR - 1,) * 2)
    image_module.remove_unused(cache, now)
    assert sorted(entry.name for entry in cache.iterdir()) == [fresh.name, foreign.name]


def test_missing_tools_are_all_named_with_the_way_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "TOOLS", ("sh", "no-such-tool", "nor-this"))
    monkeypatch.setitem(BOARDS, "amd64", BOARDS["amd64"]._replace(program="sh"))
    with pytest.raises(LabError, match=r"no no-such-tool, nor-this here; fix: tests/vm/install$"):
        tools.require(Target())
    monkeypatch.setitem(BOARDS, "arm64", BOARDS["arm64"]._replace(program="no-such-qemu"))
    monkeypatch.setattr(tools, "EMULATOR", tmp_path / "none")
    with pytest.raises(LabError, match=r"nor-this, no-such-qemu, .*none here; fix: tests/vm/install arm64$"):
        tools.require(Target(architecture="arm64"))


# -- the payload -----------------------------------------------------------------------------------------------------


def test_the_guest_gets_what_git_would_commit(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name in ("tracked", "deleted", "new", "ignored"):
        (project / name).write_text(name)
    (project / ".gitignore").write_text("ignored\n")
    (project / "run").write_text("#!/bin/sh\n")
    (project / "run").chmod(0o755)
    (project / "link").symlink_to("tracked")
    git = ["git", "-C", str(project), "-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "tracked", "deleted", "run", "link"], check=True)
    (project / "deleted").unlink()
    copy_tree(project, tmp_path / "copy")
    names = sorted(path.name for path in (tmp_path / "copy").iterdir())
    assert names == [
        ".gitignore",
        "link",
        "new",
        "run",
        "tracked",
    ]
    assert os.access(tmp_path / "copy/run", os.X_OK)
    assert (tmp_path / "copy/link").is_symlink()


def test_a_directory_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="fix: use a git checkout"):
        copy_tree(tmp_path, tmp_path / "copy")


def test_packages_come_with_what_they_need_and_nothing_else() -> None:
    found = needed_distributions(["pytest", "pydantic"])
    assert {"pytest", "pluggy", "iniconfig", "pydantic", "pydantic-core"} <= set(found)
    assert not {"mypy", "ruff", "hypothesis"} & set(found)


def test_a_missing_package_is_named() -> None:
    with pytest.raises(LabError, match="cannot hand no-such-package-here to the guest"):
        needed_distributions(["no-such-package-here"])


# -- reports ---------------------------------------------------------------------------------------------------------

INSIDE = """\
import pytest

def test_good(): pass
def test_bad(): assert 1 == 2, "one is not two"
@pytest.mark.skip(reason="no such controller")
def test_skipped(): pass
@pytest.fixture
def broken(): raise RuntimeError("the fixture broke")
def test_error(broken): pass
@pytest.mark.xfail(strict=True)
def test_expected(): assert False
"""
OUTSIDE = """\
from pathlib import Path
from tests.vm.conftest import GUEST_REPORTS, pytest_runtest_protocol
from tests.vm.reports import failed, passed, read

def test_guest(request):
    reports = list(read(request.config, Path({lines!r}).read_text()))
    request.node.stash[GUEST_REPORTS] = reports
    assert passed(reports, "inside") == ["guest:inside/test_inside.py::test_good"]
    assert failed(reports) == [
        "guest:inside/test_broken.py",
        "guest:inside/test_inside.py::test_bad",
        "guest:inside/test_inside.py::test_error",
    ]
"""


def run_pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "-p", "tests.vm.reports", *arguments]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "COLUMNS": "200"}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)


def test_each_result_of_the_guest_is_a_result_on_the_host(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside/test_inside.py").write_text(INSIDE)
    (tmp_path / "inside/test_broken.py").write_text("import no_such_module_here\n")
    (tmp_path / "outside").mkdir()
    lines = tmp_path / "lines"
    (tmp_path / "outside/conftest.py").write_text("from tests.vm.conftest import pytest_runtest_protocol\n")
    (tmp_path / "outside/test_outside.py").write_text(OUTSIDE.format(lines=str(lines)))
    inside = run_pytest(tmp_path, "inside", f"--report-lines={lines}", "--continue-on-collection-errors")
    outside = run_pytest(tmp_path, "outside")
    assert (inside.returncode, outside.returncode) == (1, 1)
    assert outside.stdout.splitlines()[-1].strip("= ").startswith("1 failed, 2 passed, 1 skipped, 1 xfailed, 2 errors")
    for said in ("one is not two", "the fixture broke", "no such controller", "no_such_module_here"):
        assert said in outside.stdout


def test_a_report_cut_short_by_a_dying_guest_is_left_out(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    from .reports import read

    (tmp_path / "test_inside.py").write_text("def test_good(): pass\n")
    lines = tmp_path / "lines"
    run_pytest(tmp_path, "test_inside.py", f"--report-lines={lines}")
    text = lines.read_text()
    assert len(list(read(request.config, text))) == 3
    assert len(list(read(request.config, text[:-10]))) == 2
