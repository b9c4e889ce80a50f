"""``sandbox:`` what a service may not do or see."""

from __future__ import annotations

import posixpath
from typing import Annotated, ClassVar

from pydantic import model_validator

from .. import model
from ..host.confinement import HOME_PLACES, TMP_PLACES
from ..text import CAPABILITIES
from . import readers
from .problems import ReadError, suggest
from .readers import Before, Flag, Reader
from .section import Section
from .tree import Leaf

DAC_READ_SEARCH = CAPABILITIES.index("dac_read_search")
_ALL = -1


def _capability(value: object) -> int:
    written = readers.text(value)
    name = written.lower().removeprefix("cap_")
    if name == "all":
        return _ALL
    if name not in CAPABILITIES:
        raise ReadError("unknown capability", lambda: suggest(name, CAPABILITIES))
    return CAPABILITIES.index(name)


def _path(value: object) -> str:
    path = posixpath.normpath(readers.absolute(value))
    if path in ("/", "//"):
        raise ReadError("names the whole tree", "name a directory in it")
    return path


Paths = Annotated[tuple[Annotated[str, Reader(_path)], ...], Before(readers.as_list)]


class Sandbox(Section):
    """Short form: strict or none. Keys left out are as in strict."""

    needs_value: ClassVar[bool] = True
    no_new_privileges: Flag = True
    capabilities: Annotated[tuple[Annotated[int, Reader(_capability)], ...], Before(readers.as_list)] = ()
    read_only: Flag = True
    writable: Paths = ()
    private_tmp: Flag = True
    private_devices: Flag = True
    protect_home: Flag = True
    visible: Paths = ()
    required: Flag = True

    @classmethod
    def short(cls, leaf: Leaf) -> dict[str, object]:
        """All of it, or nothing."""
        name = readers.choice("sandbox", "strict", "none")(leaf)
        if name == "strict":
            return {}
        off: dict[str, object] = dict.fromkeys(model.PROTECTIONS, Leaf("false", leaf.place))
        return off | {"capabilities": Leaf("all", leaf.place)}

    @model_validator(mode="after")
    def _consistent(self) -> Sandbox:
        if _ALL in self.capabilities and len(self.capabilities) > 1:
            raise ReadError("'all' capabilities and some of them", "keep one of the two")
        if self.writable and not self.read_only:
            raise ReadError("everything is writable without read_only", "remove writable, or read_only: false")
        for path in self.visible:
            if not any(inside(path, place) for place in self.hidden()):
                raise ReadError(f"{path} is visible anyway", "remove it from visible")
        return self

    def hidden(self) -> tuple[str, ...]:
        """Directories whose content the service does not see."""
        return (TMP_PLACES if self.private_tmp else ()) + (HOME_PLACES if self.protect_home else ())

    def made(self, visible: tuple[str, ...], *, required: bool) -> model.Sandbox:
        """For the plan. ``visible``: beside those of the profile."""
        kept = None if _ALL in self.capabilities else tuple(sorted(set(self.capabilities)))
        features = (self.no_new_privileges, self.read_only, self.private_tmp, self.private_devices, self.protect_home)
        if kept is None and not any(features):
            return model.Sandbox()
        return model.Sandbox(
            no_new_privileges=self.no_new_privileges,
            capabilities=kept,
            read_only=self.read_only,
            writable=self.writable,
            private_tmp=self.private_tmp,
            private_devices=self.private_devices,
            protect_home=self.protect_home,
            visible=tuple(dict.fromkeys((*self.visible, *visible))),
            required=required,
        )


def inside(path: str, place: str) -> bool:
    """Whether ``path`` is ``place`` or below it; both are normal and absolute."""
    return path == place or path.startswith(f"{place}/")
