"""Groups of the bundled services, so that they can call each other: ``callers``."""

from __future__ import annotations

from collections.abc import Sequence

from ..callers import CALLS
from ..model import Service


def let_in(services: Sequence[tuple[tuple[str, ...], Service]]) -> list[Service]:
    """The services, each with the groups of those it calls. With each: which bundled ones it runs, () for none.

    Where users are not apart (no such users, or an agent that is not root) there is nothing to do.
    """
    groups = {kind: service.gid for kinds, service in services for kind in kinds if service.gid is not None}
    made = []
    for kinds, service in services:
        wanted = {groups[callee] for kind in kinds for callee in CALLS.get(kind, {}) if callee in groups}
        new = wanted - {service.gid, *service.groups}
        if service.uid and new:  # root may call all
            service = service._replace(groups=(*service.groups, *sorted(new)))
        made.append(service)
    return made
