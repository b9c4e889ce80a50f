"""What the resident imports, held by name: every module in it is paid for on every device, for good.

`benchmarks/imports` prints what each costs. A module that is not in FREE fails here: add it with its reason, or do
without. The bans say why.
"""

from __future__ import annotations

import subprocess
import sys

from edge_agent.cli.resident import import_paths

BANNED = {
    "asyncio": "11 MiB; one loop over epoll does what the resident needs",
    "dataclasses": "2.5 MiB, by inspect; records.Record is a tuple",
    "typing": "1.4 MiB; annotations are strings, and typing is imported for the checker alone",
    "re": "0.8 MiB; nothing here parses free text",
    "logging": "0.9 MiB; events go to the journal of host/journal.py",
    "subprocess": "1.2 MiB; host/process.py forks by itself, as it must to place a child before its first instruction",
    "pathlib": "1.3 MiB by urllib and fnmatch",
    "json": "1 MiB; the wire and the disk speak msgpack",
    "threading": "one thread",
    "zmq": "6 MiB, and a network parser has no place in a process that runs as root",
    "pydantic": "10 MiB; profiles are compiled by the front end",
    "pydantic_settings": "26 MiB; as pydantic",
    "yaml": "profiles are compiled by the front end",
    "loguru": "14 MiB, by asyncio and multiprocessing",
    "apscheduler": "16 MiB, by asyncio; calendars are a service's work",
    "psutil": "3 MiB; only where no controller holds memory, by host/sampling.py",
    "ctypes": "0.8 MiB; ioprio_set(2) is called in the child alone",
    "cgroupspy.controllers": "0.75 MiB of cgroup v1 files; descriptors of v2 are in host/descriptors.py",
    "cgroupspy.nodes": "as controllers, and logging",
}

FREE = {
    *("abc", "array", "binascii", "builtins", "cgroupspy", "codecs", "collections", "copyreg", "cython_runtime"),
    *("datetime", "edge_agent", "encodings", "enum", "errno", "fcntl", "functools", "genericpath", "heapq", "io"),
    *("itertools", "keyword", "marshal", "math", "msgpack", "operator", "os", "posix", "posixpath", "reprlib"),
    *("resource", "select", "selectors", "signal", "socket", "stat", "struct", "sys", "time", "types", "zipimport"),
    "zlib",
}

PROGRAM = """
import sys
sys.path += {paths!r}
import edge_agent.agent, edge_agent.host.tree, edge_agent.host.cgroup, edge_agent.host.hierarchy
print(*sorted(sys.modules))
"""


def modules() -> list[str]:
    argv = [sys.executable, "-I", "-S", "-c", PROGRAM.format(paths=import_paths())]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


def test_the_resident_imports_nothing_that_is_not_paid_for() -> None:
    imported = modules()
    found = {name: why for name, why in BANNED.items() if name in imported}
    assert not found
    tops = {name.partition(".")[0] for name in imported}
    assert {name for name in tops if not name.startswith("_")} - FREE == set()


def test_of_this_package_only_the_resident_rooms_are_loaded() -> None:
    rooms = {name.split(".")[1] for name in modules() if name.startswith("edge_agent.")}
    assert rooms == {
        "agent",
        "changes",
        "codec",
        "control",
        "digests",
        "governor",
        "grips",
        "host",
        "lending",
        "lifecycle",
        "looks",
        "model",
        "reconciler",
        "records",
    }
