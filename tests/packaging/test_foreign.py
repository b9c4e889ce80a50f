"""The packages of the other architectures, run by QEMU's user mode emulation on their own Debian's Python."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builder.targets import TARGETS, Target
from builder.tree import tree

from edge_agent import __version__
from tests.vm.errors import LabError

from .archive import field, unpack
from .roots import Root

Packages = dict[tuple[str, str], Path]

EMULATORS = {"arm64": "qemu-aarch64-static", "armhf": "qemu-arm-static"}
IMPORTS = """
import importlib.util, pathlib, sys
sys.path += [{paths}]
failed = []
for name in {names!r}:
    try:
        __import__(name)
    except ImportError as error:
        failed.append(f"{{name}}: {{error}}")
print(*failed or ["all imported"], sep="\\n")
"""
MODULES = (
    *(
        "msgpack._cmsgpack",
        "nacl.bindings",
        "psutil._psutil_linux",
        "pydantic_core._pydantic_core",
        "yaml._yaml",
        "zmq",
    ),
    *("edge_agent.services.identity", "edge_agent.services.storage", "edge_agent.services.node", "edge_agent.agent"),
)
foreign = [target for target in TARGETS if target.deb in EMULATORS]


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
@pytest.mark.parametrize("target", foreign, ids=[target.deb for target in foreign])
def test_it_runs_on_its_architecture(packages: Packages, target: Target, suite: str, tmp_path: Path) -> None:
    package = packages[target.deb, "deb"]
    needs = [each.split(" ")[0] for each in field(package, "Depends").split(", ")]
    include = tuple(sorted({name for name in needs if name != "systemd"}))
    emulator = EMULATORS[target.deb]
    try:
        system = tree(suite, target.deb, include, configured=False)
    except LabError as error:
        if "Mirror sync in progress" not in str(error):
            raise
        pytest.skip(f"the mirror's index of {suite} for {target.deb} is not the one that its release file has signed")
    with Root(system, tmp_path) as root:
        unpack(package, root.path)
        shutil.copy(f"/usr/bin/{emulator}", root.path / emulator)
        python = [f"/{emulator}", "/usr/bin/python3", "-IS"]
        assert root.run(*python, "/usr/bin/edge-agent", "--version").strip() == f"edge-agent {__version__}"
        plan = root.run(*python, "/usr/bin/edge-agent", "plan", "--profile", "edge")
        assert "profile edge (/usr/share/edge-agent/profiles/edge.yaml)" in plan
        paths = "'/usr/lib/edge-agent'" + (", '/usr/lib/python3/dist-packages'" if target.system else "")
        names = [name.replace("msgpack._cmsgpack", "msgpack") if target.system else name for name in MODULES]
        assert root.run(*python, "-c", IMPORTS.format(paths=paths, names=names)) == "all imported\n"
        assert not list((root.path / "usr/lib/edge-agent").rglob("*.pyc.*")), "nothing is compiled where it runs"
