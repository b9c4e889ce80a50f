"""Which bundled service may call which.

Each has a user of its own, and a local socket that lets in root, that user and its group (``peers.zap.may_connect``,
mode 0660 in a directory of mode 0750). So a caller is given the group of whom it calls, and nobody else is: a service
that is broken into can ask what is in this table, and nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..model import Service

CALLS: Mapping[str, tuple[str, ...]] = {
    "node": ("ledger", "storage"),  # what other nodes ask for, and what it has fetched for this one
    "storage": ("node",),  # a blob that is not here
    "telemetry": ("identity", "storage", "ledger", "node", "analytics"),  # their metrics
    "analytics": ("telemetry",),  # what it has gathered
}
"""Callers, and whom they call. Who is not a key calls nobody."""


def let_in(services: Sequence[tuple[tuple[str, ...], Service]]) -> list[Service]:
    """The services, each with the groups of those it calls. With each: which bundled ones it runs, () for none.

    Where users are not apart (no such users, or an agent that is not root) there is nothing to do.
    """
    groups = {kind: service.gid for kinds, service in services for kind in kinds if service.gid is not None}
    made = []
    for kinds, service in services:
        wanted = {groups[callee] for kind in kinds for callee in CALLS.get(kind, ()) if callee in groups}
        new = wanted - {service.gid, *service.groups}
        if service.uid and new:  # root may call all
            service = service._replace(groups=(*service.groups, *sorted(new)))
        made.append(service)
    return made
