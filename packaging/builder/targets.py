"""What a package is made for. One row per architecture; a package works with each of PYTHONS."""

from __future__ import annotations

from typing import NamedTuple

PYTHONS = ((3, 11), (3, 13))
"""Of Debian 12 and of Debian 13: the package lives through the upgrade of the distribution."""

SYSTEM_LIBRARIES = ("cffi", "msgpack", "psutil", "pycparser", "pynacl", "pyyaml", "pyzmq")
"""Distributions without a wheel for 32-bit ARM: there the device's own packages have them."""


class Target(NamedTuple):
    """An architecture by its names."""

    deb: str  # dpkg-architecture(1)
    rpm: str
    go: str  # nfpm's
    wheel: str  # of platform tags, PEP 600
    glibc: tuple[str, ...]  # the newest that the target has, as manylinux tags; Debian 12 has 2.36
    elf: str = "()(64bit)"  # behind the name of a library, as rpm provides it
    system: tuple[str, ...] = ()  # distributions that are left to the device

    @property
    def platforms(self) -> list[str]:
        """Platform tags, as pip wants them: each by its own name."""
        return [f"{tag}_{self.wheel}" for tag in self.glibc]


_GLIBC = ("manylinux_2_34", "manylinux_2_31", "manylinux_2_28", "manylinux_2_17", "manylinux2014")

TARGETS = (
    Target("amd64", "x86_64", "amd64", "x86_64", _GLIBC),
    Target("arm64", "aarch64", "arm64", "aarch64", _GLIBC),
    Target("armhf", "armv7hl", "arm7", "armv7l", _GLIBC, "", SYSTEM_LIBRARIES),
)

SYSTEM_PACKAGES = {
    "SYSTEM_MSGPACK": {"deb": "python3-msgpack (>= 1.0.3)", "rpm": "python3-msgpack >= 1.0.3"},
    "SYSTEM_NACL": {"deb": "python3-nacl (>= 1.5)", "rpm": "python3-pynacl >= 1.5"},
    "SYSTEM_PSUTIL": {"deb": "python3-psutil (>= 5.9)", "rpm": "python3-psutil >= 5.9"},
    "SYSTEM_YAML": {"deb": "python3-yaml (>= 6)", "rpm": "python3-pyyaml >= 6"},
    "SYSTEM_ZMQ": {"deb": "python3-zmq (>= 24)", "rpm": "python3-zmq >= 24"},
}
"""Variables of nfpm.yaml: the device's packages of SYSTEM_LIBRARIES, by the names of each format."""


def dependencies(target: Target, kind: str) -> dict[str, str]:
    """SYSTEM_PACKAGES for ``target`` and ``kind``; '' where the package brings its own."""
    return {name: by_kind[kind] if target.system else "" for name, by_kind in SYSTEM_PACKAGES.items()}
