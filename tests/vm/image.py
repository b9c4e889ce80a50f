"""Builds the guest's root image from Debian packages, once per recipe, without loop mounts; root is needed for that.

What is in the cache directory of a recipe: ``disk.img`` (ext4, raw), ``vmlinuz``, ``initramfs.cpio``.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from . import mirror, tools
from .errors import LabError
from .target import Target

DISK_SIZE = "2G"  # sparse
HERE = Path(__file__).parent
PAYLOAD = "/opt/edge-agent"
"""Where the guest sees the project (``src``), the Python packages it needs (``site``) and our runner (``lab``)."""

UNUSED_FOR = 30 * 24 * 3600
"""Seconds after which the image of another recipe is removed from the cache."""

DPKG_OPTIONS = [
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
]

# systemd would spend seconds of an emulated boot on these, or they would compete with what is tested.
MASKED = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "modprobe@.service",
    "mosquitto.service",
    "proc-sys-fs-binfmt_misc.automount",
    "proc-sys-fs-binfmt_misc.mount",
    "redis-server.service",
    "serial-getty@ttyAMA0.service",
    "serial-getty@ttyS0.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-logind.service",
    "systemd-pstore.service",
]

FILES = {
    "etc/hostname": "edge-agent-lab\n",
    "etc/hosts": "127.0.0.1 localhost edge-agent-lab\n::1 localhost ip6-localhost ip6-loopback\n",
    "etc/machine-id": "",  # empty: made anew at each boot from a snapshot, machine-id(5)
    "etc/systemd/system/edge-agent-lab.service": f"""\
[Unit]
Description=Runs the host's commands

[Service]
WorkingDirectory={PAYLOAD}/lab
ExecStart=/usr/bin/python3 -m tests.vm.runner
Delegate=yes
OOMPolicy=continue
TasksMax=infinity
StandardOutput=journal+console

[Install]
WantedBy=multi-user.target
""",
}
PATHS = f"{PAYLOAD}/src\n{PAYLOAD}/site\n"
"""What Python adds to sys.path, site.rst: directories that are not there are left out."""

LINKS = {
    "etc/systemd/system/multi-user.target.wants/edge-agent-lab.service": "../edge-agent-lab.service",
    "etc/systemd/system/default.target": "/lib/systemd/system/multi-user.target",
    "usr/local/bin/edge-agent": f"{PAYLOAD}/bin/edge-agent",  # dangles, as far as PATH goes, without the project
    **{f"etc/systemd/system/{unit}": "/dev/null" for unit in MASKED},
}

INITRAMFS_MODULES = ["virtio_pci", "virtio_blk", "virtio_console", "ext4"]  # those the kernel has not built in
INITRAMFS_PROGRAMS = ["cat", "hostname", "ifconfig", "insmod", "mkdir", "mount", "poweroff", "sh", "sleep"]
INITRAMFS_PROGRAMS += ["switch_root", "umount"]
INIT = f"""\
#!/bin/sh
PATH=/bin
fail() {{ echo "initramfs: cannot $1" >/dev/console; poweroff -f; sleep 60; }}
mount -t devtmpfs dev /dev
mount -t proc proc /proc
for module in /lib/*.ko; do insmod "$module" || fail "load $module"; done
mount -t ext4 /dev/vda /sysroot || fail "mount the root disk"
mount -t ext4 /dev/vdb /sysroot{PAYLOAD} || fail "mount the project's disk"
if [ -e /dev/vdc ]; then
    mount -t ext4 /dev/vdc /sysroot{PAYLOAD}/site || fail "mount the packages' disk"
fi
mode=systemd
for word in $(cat /proc/cmdline); do
    case $word in lab.init=*) mode=${{word#lab.init=}} ;; esac
done
mount --move /dev /sysroot/dev
if [ "$mode" != kernel ]; then
    umount /proc
    exec switch_root /sysroot /sbin/init
fi
mount --move /proc /sysroot/proc
mount -t sysfs sys /sysroot/sys
mount -t cgroup2 cgroup2 /sysroot/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /sysroot/run
mount -t tmpfs -o mode=1777 tmpfs /sysroot/tmp
mkdir -p /sysroot/dev/pts /sysroot/dev/shm /sysroot/run/lock
mount -t devpts devpts /sysroot/dev/pts
mount -t tmpfs -o mode=1777 tmpfs /sysroot/dev/shm
ifconfig lo 127.0.0.1 up
hostname edge-agent-lab
# The shell stays process 1 and reaps orphans.
exec switch_root /sysroot /bin/sh -c \
'cd {PAYLOAD}/lab; /usr/bin/python3 -m tests.vm.runner >/dev/console 2>&1; echo o >/proc/sysrq-trigger; sleep 60'
"""


class Image(NamedTuple):
    """A finished image: read-only for everyone who boots it."""

    disk: Path
    kernel: Path
    initramfs: Path


def packages(target: Target) -> list[str]:
    """The packages of packages.txt, in which ARCH stands for the architecture, and the target's own."""
    lines = (line.strip() for line in (HERE / "packages.txt").read_text().splitlines())
    common = [line.replace("ARCH", target.architecture) for line in lines if line and not line.startswith("#")]
    return [*common, *target.extra]


def files(target: Target) -> dict[str, str]:
    """The files we add, path -> text."""
    major, minor = target.python
    return FILES | {f"usr/local/lib/python{major}.{minor}/dist-packages/edge-agent-lab.pth": PATHS}


def recipe(target: Target) -> str:
    """Everything that shapes the image, as text; its hash names the image."""
    parts = [
        target,
        DISK_SIZE,
        packages(target),
        DPKG_OPTIONS,
        files(target),
        LINKS,
        INITRAMFS_MODULES,
        INITRAMFS_PROGRAMS,
        INIT,
    ]
    return json.dumps(parts, indent=1, sort_keys=True)


def cache_directory() -> Path:
    """EDGE_AGENT_VM_CACHE, else edge-agent-vm in the user's cache directory (XDG base directory specification)."""
    if explicit := os.environ.get("EDGE_AGENT_VM_CACHE"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-agent-vm"


def cached(directory: Path) -> Image:
    """The image whose files are in ``directory``."""
    return Image(directory / "disk.img", directory / "vmlinuz", directory / "initramfs.cpio")


def image(target: Target) -> Image:
    """The image of the present recipe for ``target``, built first when the cache has none. LabError if it cannot.

    A build becomes visible by one rename, so a broken one is never used; a second builder waits for the first.
    """
    cache = cache_directory()
    final = cache / hashlib.sha256(recipe(target).encode()).hexdigest()[:16]
    if not final.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with lock(cache / "lock"):
            if not final.is_dir():
                for leftover in cache.glob(".build-*"):  # of a builder that was killed: we hold the lock
                    shutil.rmtree(leftover)
                remove_unused(cache, time.time())
                build(target, cache, final)
    touch(final)
    return cached(final)


def touch(path: Path) -> None:
    """Note the use of a thing in the cache; a cache of another user's cannot be touched, which is no harm."""
    with suppress(PermissionError):
        os.utime(path)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """An exclusive flock(2) on ``path``."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_unused(cache: Path, now: float) -> None:
    """Remove what no guest has used for a month."""
    for entry in cache.iterdir():
        if not re.fullmatch(r"[0-9a-f]{16}|site-[0-9a-f]{16}\.img", entry.name):
            continue
        if now - entry.stat().st_mtime > UNUSED_FOR:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def build(target: Target, cache: Path, final: Path) -> None:
    """Build into a directory beside ``final``, then rename it."""
    if os.geteuid() != 0:
        raise LabError(
            "cannot build the virtual machine's image: not root (it holds files of several users); "
            "fix: sudo .venv/bin/python -m tests.vm.lab build, with EDGE_AGENT_VM_CACHE set to a shared directory"
        )
    work = Path(tempfile.mkdtemp(prefix=".build-", dir=cache))
    try:
        root, result = work / "root", work / "result"
        result.mkdir(mode=0o755)
        install_packages(target, root, work, cache / "build.log")
        customise(target, root)
        (kernel,) = (root / "boot").glob("vmlinuz-*")
        (result / "vmlinuz").write_bytes(bootable(kernel.read_bytes()))
        make_initramfs(root, kernel.name.removeprefix("vmlinuz-"), work / "initramfs", result / "initramfs.cpio")
        make_ext4(root, result / "disk.img", DISK_SIZE)
        (result / "recipe.json").write_text(recipe(target))
        result.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def install_packages(target: Target, root: Path, work: Path, log: Path) -> None:
    """mmdebstrap(1) into ``root``; what it said is in ``log``."""
    keyring = mirror.KEYRING if Path(mirror.KEYRING).exists() else ""
    sources = work / "guest.list"
    sources.write_text(mirror.guest_sources(mirror.configured_sources(), target.suite, keyring))
    command = [
        "mmdebstrap",
        "--mode=root",
        "--format=directory",
        "--variant=minbase",
        f"--architectures={target.architecture}",
        f"--include={','.join(packages(target))}",
        '--aptopt=Acquire::Retries "3"',
        *(f"--aptopt={option}" for option in clock_options()),
        *(f"--dpkgopt={option}" for option in DPKG_OPTIONS),
        target.suite,
        str(root),
        str(sources),
    ]
    # INITRD=No: the kernel package's hook would spend 10 s on an initramfs nobody uses.
    execute(command, log, "install Debian packages", {"INITRD": "No"} | proxies())


def apt_configuration(key: str) -> str:
    """One value of this machine's apt configuration, '' when it is not set."""
    try:
        shell = ["apt-config", "shell", "value", key]
        done = subprocess.run(shell, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    found = re.fullmatch(r"value='(.*)'\s*", done.stdout)
    return found[1] if found else ""


def clock_options() -> list[str]:
    """A machine that lives off an old snapshot of the archive says so in its apt configuration; then we need it too."""
    keys = ("Acquire::Check-Valid-Until", "Acquire::Check-Date")
    return [f'{key} "{value}"' for key in keys if (value := apt_configuration(key))]


def proxies() -> dict[str, str]:
    """apt's proxies as environment variables, which win over nothing that is set already."""
    wanted = {"http_proxy": "Acquire::http::Proxy", "https_proxy": "Acquire::https::Proxy"}
    return {
        name: value
        for name, key in wanted.items()
        if not os.environ.get(name) and (value := apt_configuration(key)) not in ("", "DIRECT")
    }


def customise(target: Target, root: Path) -> None:
    """Put our few files and links into the fresh root."""
    for name, text in files(target).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    for name, leads_to in LINKS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(leads_to)
    (root / PAYLOAD.lstrip("/")).mkdir(parents=True)


def bootable(kernel: bytes) -> bytes:
    """The kernel as QEMU takes it: unpacked, when it unpacks itself as an EFI program (zboot-header.S)."""
    if kernel[:2] != b"MZ" or kernel[4:8] != b"zimg":
        return kernel
    offset, size = (int.from_bytes(kernel[at : at + 4], "little") for at in (8, 12))
    method = kernel[24:56].split(b"\0")[0].decode()
    if method != "gzip":
        raise LabError(f"cannot unpack the kernel: it is compressed by {method}, which the lab does not know")
    return gzip.decompress(kernel[offset : offset + size])


def make_initramfs(root: Path, release: str, tree: Path, target: Path) -> None:
    """busybox, the modules that reach the disks and the channel, and INIT. initramfs-buffer-format.rst, newc."""
    for name in ("bin", "dev", "lib", "proc", "sysroot"):
        (tree / name).mkdir(parents=True)
    shutil.copy(root / "bin/busybox", tree / "bin/busybox")
    for name in INITRAMFS_PROGRAMS:
        (tree / "bin" / name).symlink_to("busybox")
    wanted: dict[str, None] = {}
    for name in INITRAMFS_MODULES:
        show = ["chroot", str(root), "modprobe", "--set-version", release, "--show-depends", name]
        for line in subprocess.run(show, check=True, capture_output=True, text=True).stdout.splitlines():
            if line.startswith("insmod "):
                wanted[line.split()[1]] = None
    for order, path in enumerate(wanted):
        module = root / path.lstrip("/")
        content = lzma.decompress(module.read_bytes()) if module.suffix == ".xz" else module.read_bytes()
        (tree / f"lib/{order:02}-{Path(path).name.removesuffix('.xz')}").write_bytes(content)
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    names = "\n".join(sorted(str(path.relative_to(tree)) for path in tree.rglob("*")))
    with target.open("wb") as out:
        archive = ["cpio", "--create", "--format=newc", "--owner=0:0", "--quiet"]
        subprocess.run(archive, cwd=tree, input=names.encode(), stdout=out, check=True)


def make_ext4(tree: Path, target: Path, size: str) -> None:
    """A sparse ext4 image with the content of ``tree``: mke2fs(8) fills it without mounting anything."""
    command = ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", str(tree), str(target), size]
    done = subprocess.run(command, env=tools.environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"cannot make {target.name}: mke2fs says: {done.stderr.strip()}")


def execute(command: list[str], log: Path, what: str, extra: dict[str, str]) -> None:
    """Run a long command with its output in ``log``. LabError with the log's end when it fails."""
    with log.open("w") as out:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=tools.environment() | extra
        )
    if done.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise LabError(f"cannot {what}: {command[0]} ended with {done.returncode}; all of it is in {log}:\n{tail}")
