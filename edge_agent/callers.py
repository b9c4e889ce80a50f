"""Which bundled service may ask which one for what. Pure: the profile gives groups by it, the services answer by it.

Each runs as a user of its own where it can. A local socket lets in root, its service's user, and that one's group
(``peers.zap.may_connect``); so a caller gets the group of whom it calls. There it may ask for what is written here and
no more: a node service that was broken into cannot have anything signed. People in such a group may ask for anything.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Callees = Mapping[str, tuple[str, ...]]

USER = "edge-agent-{}"
"""The system user of a bundled service, or of the process that several share; the packages make them."""
EMBEDDED = "embedded"
"""The process that several share: what any of them may, it may."""

ALWAYS = ("health", "metrics")
CALLS: Mapping[str, Callees] = {
    "node": {
        "ledger": (
            "head",
            "key",
            "consistency",
            "inclusion",
            "entries",
            "append",
            "cosign",
        ),  # what other nodes ask for
        "storage": ("get",),
        "identity": ("enrol",),
    },
    "storage": {"node": ("fetch",), "identity": ("enrol",)},  # a blob that is not here
    "ledger": {"identity": ("enrol",)},
    "telemetry": {"identity": ("enrol",), "storage": (), "ledger": (), "node": (), "analytics": ()},
    "analytics": {"telemetry": ("gathered",), "identity": ("enrol",)},
}
"""Callers, whom they call, and for what beside ALWAYS."""


def may_ask(user: str, callee: str, op: str) -> bool:
    """May a process of this system user ask the bundled service ``callee`` for ``op``, once it was let in?"""
    prefix = USER.format("")
    caller = user.removeprefix(prefix)
    if caller == user or op in ALWAYS:
        return True
    if caller == EMBEDDED:
        return any(op in callees.get(callee, ()) for callees in CALLS.values())
    return op in CALLS.get(caller, {}).get(callee, ())
