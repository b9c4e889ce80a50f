"""Machines that are network namespaces: each with a link of its own to the first one, which can be cut and made slow.

ip-netns(8), veth(4), tc-netem(8). Needs root and iproute2; names and addresses are this process's own.
"""

from __future__ import annotations

import os
import subprocess
from types import TracebackType
from typing import Self


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


def unavailable() -> str:
    """Why there can be no namespaces here; '' when there can."""
    if os.geteuid() != 0:
        return "needs root"
    try:
        with Net("probe"):
            return ""
    except OSError as error:
        return f"no network namespaces: {error}"


class Net:
    """A hub and spokes. ``address(spoke)`` is the hub's as that spoke sees it."""

    def __init__(self, *spokes: str) -> None:
        self._mark = f"ea{os.getpid() % 100_000}"
        self._spokes = spokes
        self._made: list[str] = []

    def __enter__(self) -> Self:
        try:
            self._make("hub")
            for number, spoke in enumerate(self._spokes, 1):
                self._make(spoke)
                inner, outer = f"{self._mark}i{number}", f"{self._mark}o{number}"
                _run("ip", "link", "add", outer, "netns", self._name("hub"), "type", "veth", "peer", inner)
                _run("ip", "link", "set", inner, "netns", self._name(spoke))
                for place, link, end in (("hub", outer, 1), (spoke, inner, 2)):
                    self.ip(place, "addr", "add", f"10.213.{number}.{end}/24", "dev", link)
                    self.ip(place, "link", "set", link, "addrgenmode", "none")  # nothing of IPv6 on the wire
                    self.ip(place, "link", "set", link, "up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def _name(self, place: str) -> str:
        return f"{self._mark}-{place}"

    def _make(self, place: str) -> None:
        _run("ip", "netns", "add", self._name(place))
        self._made.append(self._name(place))
        self.ip(place, "link", "set", "lo", "up")

    def ip(self, place: str, *words: str) -> None:
        """One command of ip(8) in there."""
        _run("ip", "-n", self._name(place), *words)

    def inside(self, place: str) -> list[str]:
        """What to put before a command that is to run in there. It keeps the pid."""
        return ["ip", "netns", "exec", self._name(place)]

    def address(self, spoke: str) -> str:
        """The hub's, on the link to ``spoke``."""
        return f"10.213.{self._spokes.index(spoke) + 1}.1"

    def _outer(self, spoke: str) -> str:
        return f"{self._mark}o{self._spokes.index(spoke) + 1}"

    def cut(self, spoke: str) -> None:
        """Unplug it: nobody is told."""
        self.ip("hub", "link", "set", self._outer(spoke), "down")

    def mend(self, spoke: str) -> None:
        """Plug it in again."""
        self.ip("hub", "link", "set", self._outer(spoke), "up")

    def octets(self, spoke: str) -> int:
        """Bytes on the link to ``spoke``, both directions, Ethernet's headers included."""
        counters = f"/sys/class/net/{self._outer(spoke)}/statistics"
        script = f"cat {counters}/rx_bytes {counters}/tx_bytes"
        words = [*self.inside("hub"), "sh", "-c", script]
        told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        return sum(int(word) for word in told.split())
