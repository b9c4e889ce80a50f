"""What kind of machine a guest is: Debian's release and processor architecture, and what QEMU needs for it."""

from __future__ import annotations

from typing import NamedTuple


class Board(NamedTuple):
    """An architecture as QEMU has it."""

    program: str
    options: tuple[str, ...]
    console: str  # the serial port's name in Linux


BOARDS = {
    "amd64": Board("qemu-system-x86_64", ("-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "max"), "ttyS0"),
    # The processor of a Raspberry Pi 4.
    "arm64": Board(
        "qemu-system-aarch64", ("-accel", "tcg,thread=multi", "-machine", "virt", "-cpu", "cortex-a72"), "ttyAMA0"
    ),
}
PYTHON = {"bookworm": (3, 11), "trixie": (3, 13)}


class Target(NamedTuple):
    """Suite and architecture are Debian's names. ``extra``: Debian packages beside those of packages.txt."""

    suite: str = "bookworm"
    architecture: str = "amd64"
    extra: tuple[str, ...] = ()

    @property
    def board(self) -> Board:
        """Its QEMU machine."""
        return BOARDS[self.architecture]

    @property
    def python(self) -> tuple[int, int]:
        """The version of its ``python3``."""
        return PYTHON[self.suite]

    def __str__(self) -> str:
        return f"{self.suite}-{self.architecture}"


def parse(word: str) -> Target:
    """``SUITE`` or ``SUITE-ARCHITECTURE``, as ``str(target)`` writes it. ValueError for others."""
    suite, _, architecture = word.partition("-")
    target = Target(suite, architecture or "amd64")
    if target.suite not in PYTHON or target.architecture not in BOARDS:
        raise ValueError(f"{word!r} is no machine of the lab: {', '.join(PYTHON)}, with -{' or -'.join(BOARDS)}")
    return target
