"""What a sandboxed program really can and cannot do, asked of the kernel by the program itself."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.host import confinement, process
from edge_agent.model import PROTECTIONS, Limits, Sandbox, Service
from tests.contract.places import PATIENCE, RealPlaces

OBSTACLE = confinement.obstacle(Path("/proc/self/status").read_text(), os.uname().release)
pytestmark = pytest.mark.skipif(bool(OBSTACLE), reason=f"needs mounts of its own: {OBSTACLE}")

STRICT = Sandbox(
    no_new_privileges=True,
    capabilities=(),
    read_only=True,
    private_tmp=True,
    private_devices=True,
    protect_home=True,
    required=True,
)
NOBODY = 65534
CAP_CHOWN, CAP_NET_BIND_SERVICE, CAP_SYS_ADMIN = 0, 10, 21

LESS = """
import ctypes, os, struct, sys
sys.path[:0] = {path!r}
from edge_agent.host import process
from edge_agent.model import Sandbox, Service
held = next(int(line.split()[1], 16) for line in open("/proc/self/status") if line.startswith("CapPrm"))
left = held & ~(1 << {admin} | 1 << {chown})
low, high = left & 0xffffffff, left >> 32
data = struct.pack("=6I", low, low, 0, high, high, 0)
assert ctypes.CDLL(None).capset(struct.pack("=Ii", 0x20080522, 0), data) == 0
for sandbox in Sandbox(read_only=True, required=True), Sandbox(capabilities=({chown},), required=True):
    child = process.launch(Service("less", ("/bin/true",), sandbox=sandbox), entry_fd=-1, stdout=2)
    process.release(child)
    os.waitpid(child.pid, 0)
    print(process.read_error(child.error_fd))
"""

TRY = """
import errno, json, os, subprocess, sys
def attempt(call, *arguments):
    try:
        return call(*arguments) or ""
    except OSError as error:
        return errno.errorcode[error.errno]
def write(path):
    with open(path, "w") as file:
        file.write("x")
def listed(path):
    return sorted(os.listdir(path))
def pty():
    for fd in os.openpty():
        os.close(fd)
def capabilities():
    lines = (line.split(":") for line in open("/proc/self/status") if line.startswith("Cap"))
    return {name: int(value, 16) for name, value in lines}
told = {}
for name, line in json.loads(sys.argv[1]).items():
    told[name] = attempt(eval, line)
os.write(1, json.dumps(told).encode())
"""


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory that a sandbox does not hide."""
    with tempfile.TemporaryDirectory(prefix="edge-agent-test-", dir="/var/lib") as path:
        Path(path).chmod(0o755)
        yield Path(path)


def ask(real: RealPlaces, service: Service, **lines: str) -> dict[str, Any]:
    """What each expression, evaluated in the program, gave or raised (the name of its errno)."""
    service = service._replace(argv=("/usr/bin/python3", "-I", "-S", "-c", TRY, json.dumps(lines)))
    containment = real.containment()
    containment.prepare(service)
    reader, writer = os.pipe()
    child = real.launch(containment, service, writer)
    os.close(writer)
    process.release(child)
    data = b""
    while part := os.read(reader, 65536):
        data += part
    os.close(reader)
    failure = process.read_error(child.error_fd)
    assert failure == "", failure
    os.waitpid(child.pid, 0)
    os.close(child.error_fd)
    os.close(child.pidfd)
    told = json.loads(data)
    assert isinstance(told, dict)
    return told


def strict(outside: Path, **changes: Any) -> Service:
    own = outside / "own"
    own.mkdir(exist_ok=True)
    os.chown(own, NOBODY, NOBODY)
    made = Service("strict", ("-",), uid=NOBODY, gid=NOBODY, directories=(str(own),), sandbox=STRICT)
    return made._replace(**changes)


def test_it_writes_its_own_directories_and_nothing_else(real: RealPlaces, outside: Path) -> None:
    other = outside / "other"
    other.mkdir()
    other.chmod(0o777)
    told = ask(
        real,
        strict(outside),
        own=f"write('{outside}/own/file')",
        etc="write('/etc/edge-agent-test')",
        other=f"write('{other}/file')",
        sysctl="write('/proc/sys/kernel/domainname')",
        own_proc="write('/proc/self/comm')",
        read="listed('/etc') == []",
    )
    assert told == {"own": "", "etc": "EROFS", "other": "EROFS", "sysctl": "EROFS", "own_proc": "EROFS", "read": ""}
    assert (outside / "own/file").read_text() == "x"
    assert not Path("/etc/edge-agent-test").exists()


def test_root_is_held_as_well(real: RealPlaces, outside: Path) -> None:
    """Without a user of its own: no capability gives the mounts back, nor what belongs to somebody else."""
    told = ask(
        real,
        strict(outside, uid=None, gid=None),
        etc="write('/etc/edge-agent-test')",
        pattern="write('/proc/sys/kernel/core_pattern')",
        control="write('/sys/fs/cgroup/cgroup.subtree_control')",
        disk="os.mknod('/tmp/disk', 0o60600, 0)",
        chown="os.chown('/tmp', 1, 1)",
        remount="subprocess.run(['/bin/mount', '-o', 'remount,bind,rw', '/'], stderr=-3).returncode",
        own=f"write('{outside}/own/file')",
        sets="capabilities()",
    )
    assert told["remount"] != ""
    assert set(told.pop("sets").values()) == {0}
    assert {name: told[name] for name in ("etc", "pattern", "disk", "chown")} == {
        "etc": "EROFS",
        "pattern": "EROFS",
        "disk": "EPERM",
        "chown": "EPERM",
    }
    assert told["control"] in ("EROFS", "ENOENT", "EACCES")  # no such file where the hierarchy is hybrid
    assert told["own"] == "EACCES"  # it is nobody's: root without capabilities is one user among others


def test_its_capability_sets_are_empty_and_a_setuid_program_gives_it_nothing(real: RealPlaces, outside: Path) -> None:
    own = outside / "bin"
    own.mkdir()
    tool = own / "id"
    tool.write_bytes(Path("/usr/bin/id").read_bytes())
    tool.chmod(0o4755)
    lines = {"who": f"subprocess.check_output(['{tool}', '-u']).decode().strip()", "sets": "capabilities()"}
    free = ask(real, strict(outside, sandbox=Sandbox()), **lines)
    assert free["who"] == "0"  # so the tool is one that would
    held = ask(real, strict(outside), **lines)
    assert held["who"] == str(NOBODY)
    assert held["sets"] == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0)


@pytest.mark.parametrize("uid", [NOBODY, None])
def test_it_keeps_the_capabilities_it_is_to_keep(real: RealPlaces, outside: Path, uid: int | None) -> None:
    sandbox = STRICT._replace(capabilities=(CAP_NET_BIND_SERVICE,))
    told = ask(real, strict(outside, uid=uid, gid=uid, sandbox=sandbox), sets="capabilities()")
    kept = 1 << CAP_NET_BIND_SERVICE
    assert {told["sets"][name] for name in ("CapPrm", "CapEff", "CapBnd")} == {kept}


def test_its_tmp_is_empty_its_own_and_bounded(real: RealPlaces, outside: Path, tmp_path: Path) -> None:
    told = ask(
        real,
        strict(outside, limits=Limits(memory_limit=64 << 20)),
        tmp="listed('/tmp')",
        var="listed('/var/tmp')",
        shm="listed('/dev/shm')",
        write="[write('/tmp/file'), write('/var/tmp/file'), write('/dev/shm/file')] and listed('/tmp')",
        full="open('/tmp/large', 'wb').write(bytes(20 << 20)) and ''",
        size="os.statvfs('/tmp').f_blocks * os.statvfs('/tmp').f_frsize",
    )
    assert told["tmp"] == told["var"] == told["shm"] == ""
    assert told["write"] == ["file"]
    assert told["full"] == "ENOSPC"
    assert told["size"] == 16 << 20
    assert not Path("/tmp/file").exists()
    assert tmp_path.exists()


def test_devices_are_those_that_lead_nowhere(real: RealPlaces, outside: Path) -> None:
    told = ask(
        real,
        strict(outside),
        names="listed('/dev')",
        null="write('/dev/null')",
        pty="pty()",
        new="write('/dev/new')",
        random="len(open('/dev/urandom', 'rb').read(8))",
        fd="os.path.exists('/dev/stdout')",
    )
    always = {
        "fd",
        "full",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    }
    assert set(told["names"]) - {"log"} == always
    assert (told["null"], told["pty"], told["random"], told["fd"]) == ("", "", 8, True)
    assert told["new"] in ("EROFS", "EACCES")


def test_homes_are_empty(real: RealPlaces, outside: Path) -> None:
    told = ask(real, strict(outside, uid=None, gid=None), root="listed('/root')", home="listed('/home')")
    assert told == {"root": "", "home": ""}


def test_what_is_named_is_seen_in_what_is_hidden(real: RealPlaces, outside: Path, tmp_path: Path) -> None:
    """A checkout in a temporary directory, a notify socket, and directories of the service's own there."""
    for name in ("seen", "own", "hidden"):
        (tmp_path / name).mkdir()
    os.chown(tmp_path / "own", NOBODY, NOBODY)
    (tmp_path / "seen/file").write_text("x")
    service = strict(outside, directories=(str(tmp_path / "own"),))
    service = service._replace(sandbox=STRICT._replace(visible=(str(tmp_path / "seen"),)))
    told = ask(
        real,
        service,
        names=f"listed('{tmp_path}')",
        seen=f"open('{tmp_path}/seen/file').read()",
        wrote=f"write('{tmp_path}/own/file')",
        refused=f"write('{tmp_path}/seen/file')",
    )
    assert told == {"names": ["own", "seen"], "seen": "x", "wrote": "", "refused": "EROFS"}
    assert (tmp_path / "own/file").read_text() == "x"


def test_what_is_mounted_read_only_in_a_writable_place_stays_so(real: RealPlaces, outside: Path) -> None:
    held = outside / "own" / "held"
    service = strict(outside)
    held.mkdir()
    os.system(f"mount -t tmpfs -o ro,mode=777 none {held}")  # noqa: S605 - a name of this test's own
    try:
        assert ask(real, service, held=f"write('{held}/file')")["held"] == "EROFS"
    finally:
        os.system(f"umount {held}")  # noqa: S605


def test_sockets_of_others_can_be_reached(real: RealPlaces, outside: Path) -> None:
    path = outside / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0o666)
        told = ask(real, strict(outside), it=f"__import__('socket').socket(1).connect('{path}')")
    assert told["it"] == ""


def test_the_notify_socket_is_reached_wherever_it_is(tmp_path: Path, outside: Path) -> None:
    tmp_path.chmod(0o755)
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        path.chmod(0o666)
        say = "import os, socket; socket.socket(1, 2).sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])"
        service = strict(outside, argv=("/usr/bin/python3", "-I", "-S", "-c", say))
        child = process.launch(service, entry_fd=-1, stdout=2, notify_path=str(path))
        process.release(child)
        assert select.select([server], [], [], PATIENCE)[0]
        assert server.recv(100) == b"READY=1"
        os.waitpid(child.pid, 0)
        os.close(child.error_fd)
        os.close(child.pidfd)


def test_nothing_of_it_is_seen_by_the_agent(real: RealPlaces, outside: Path) -> None:
    def seen() -> tuple[str, Path, list[Path]]:
        mounts, namespace = Path("/proc/self/mountinfo"), Path("/proc/self/ns/mnt")
        return mounts.read_text(), namespace.readlink(), sorted(Path("/dev").iterdir())

    before = seen()
    ask(real, strict(outside), it="write('/tmp/file')")
    assert seen() == before


def test_the_kernel_is_asked_what_of_it_is_there(real: RealPlaces, outside: Path) -> None:
    containment = real.containment()
    service = strict(outside, argv=("/bin/sleep", "1000"))
    for sandbox, seen in ((STRICT, {("enforced", "")}), (Sandbox(), {("not enforced", "started-without")})):
        containment.prepare(service)
        pid = real.start(containment, service._replace(sandbox=sandbox))
        report = confinement.report(STRICT, pid)
        assert tuple(report) == PROTECTIONS
        assert set(report.values()) == seen
        real.end(pid)
        containment.remove("strict")
    assert {kind for kind, _ in confinement.report(Sandbox(), os.getpid()).values()} == {"unset"}


def test_without_read_only_the_rest_is_as_it_was(real: RealPlaces, outside: Path) -> None:
    """Each part by itself: what is not asked for is not taken."""
    alone = Sandbox(private_tmp=True, required=True)
    told = ask(
        real,
        strict(outside, uid=None, gid=None, sandbox=alone),
        tmp="listed('/tmp')",
        size="os.statvfs('/tmp').f_blocks * os.statvfs('/tmp').f_frsize",
        write=f"write('{outside}/file')",
        devices="os.path.exists('/dev/kmsg')",
        sets="capabilities()['CapEff'] != 0",
    )
    ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert told["size"] <= ram // 10 + (1 << 20)
    assert {name: told[name] for name in ("tmp", "write", "devices", "sets")} == {
        "tmp": "",
        "write": "",
        "devices": Path("/dev/kmsg").exists() or "",
        "sets": True,
    }
    devices = Sandbox(private_devices=True, required=True)
    told = ask(
        real,
        strict(outside, uid=None, gid=None, sandbox=devices),
        kmsg="os.path.exists('/dev/kmsg')",
        shm="write('/dev/shm/edge-agent-test')",
        pty="pty()",
    )
    assert told == {"kmsg": "", "shm": "", "pty": ""}
    assert Path("/dev/shm/edge-agent-test").exists()
    Path("/dev/shm/edge-agent-test").unlink()


@pytest.mark.parametrize("required", [True, False])
def test_without_what_is_required_it_does_not_start_and_without_a_wish_it_does(
    real: RealPlaces, outside: Path, required: bool
) -> None:
    sandbox = STRICT._replace(writable=(f"{outside}/nonsuch",), required=required)
    service = strict(outside, argv=("/bin/cat", "/proc/self/status"), sandbox=sandbox)
    containment = real.containment()
    containment.prepare(service)
    reader, writer = os.pipe()
    child = real.launch(containment, service, writer)
    os.close(writer)
    process.release(child)
    said = b""
    while part := os.read(reader, 65536):
        said += part
    os.close(reader)
    failure = process.read_error(child.error_fd) or ""
    why = f"cannot open {outside}/nonsuch: No such file or directory; fix: create it"
    assert why in (failure if required else said.decode())
    assert ("NoNewPrivs:\t1" in said.decode()) != required  # what can be had is kept
    os.waitpid(child.pid, 0)
    os.close(child.error_fd)
    os.close(child.pidfd)


def test_an_agent_without_the_capabilities_says_so() -> None:
    """As root in a container."""
    program = LESS.format(path=sys.path, admin=CAP_SYS_ADMIN, chown=CAP_CHOWN)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    first, second = done.stdout.splitlines()
    assert "cannot leave the agent's mount namespace: Operation not permitted; fix: run the agent as root" in first
    assert "cannot keep capability 0: the agent does not have it; fix: " in second
