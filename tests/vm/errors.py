"""What can go wrong in the lab, each with a sentence for people."""

from __future__ import annotations


class LabError(Exception):
    """The lab itself failed: tools missing, image not built, guest did not come up or went away."""


class LabTimeoutError(LabError):
    """A command in the guest, or its boot, took too long; the guest was powered off hard."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output
        """What the command had written until then."""
