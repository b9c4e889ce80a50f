"""YAML, environment and flags in; a validated ``demand.Profile`` out, or every problem at once.

``directories`` is light. ``load`` costs the import of pydantic-settings and is therefore fetched when first asked for.
"""

from __future__ import annotations

from .directories import Directories, find
from .problems import Problem, ProfileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .loading import load

__all__ = ["Directories", "Problem", "ProfileError", "find", "load"]


def __getattr__(name: str) -> object:
    if name == "load":
        from .loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
