"""Cycles in depends_on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MOST = 10
"""Cycles reported; a dense knot has more of them than anyone reads."""


def cycles(edges: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """Services that wait for each other, as (a, b, a) with the first in file order in front; at most MOST.

    Iterative depth-first search: a chain of 1,000 services must not meet the recursion limit.
    """
    order = {name: index for index, name in enumerate(edges)}
    found: list[tuple[str, ...]] = []
    done: set[str] = set()
    for start in edges:
        if start in done:
            continue
        trail = {start: iter(edges[start])}  # from start to the service looked at, in order
        while trail and len(found) < MOST:
            name = next(reversed(trail))
            following = next(trail[name], None)
            if following is None:
                done.add(name)
                del trail[name]
            elif following in trail:
                path = list(trail)
                found.append(_rotated(path[path.index(following) :], order))
            elif following in edges and following not in done:
                trail[following] = iter(edges[following])
    return found


def _rotated(loop: list[str], order: Mapping[str, int]) -> tuple[str, ...]:
    first = loop.index(min(loop, key=order.__getitem__))
    return (*loop[first:], *loop[: first + 1])
