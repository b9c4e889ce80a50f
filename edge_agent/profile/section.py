"""The base of every part of the format."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

from .problems import ReadError
from .tree import Leaf


class NotActedOn:
    """Annotation of a field that is accepted, checked and reported, and has no effect in this release.

    ``unless``: the value that asks for what happens anyway, which is not worth a report.
    """

    def __init__(self, unless: object = None) -> None:
        self.unless = unless


NOT_YET = NotActedOn()


class Section(BaseModel):
    """A mapping with known keys. Nothing after its colon reads as no keys; a subclass may know a short form."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, protected_namespaces=())

    needs_value: ClassVar[bool] = False
    """Whether nothing after the colon is a forgotten value: ``memory:`` must not come to mean 'without limit'."""

    @classmethod
    def short(cls, _leaf: Leaf) -> dict[str, object]:
        """The long form of a single value. Raises ReadError when there is no such form."""
        raise ReadError("expected keys below it, not a single value", "use " + ", ".join(known_keys(cls)[:6]))

    @model_validator(mode="before")
    @classmethod
    def _long_form(cls, value: object) -> object:
        if isinstance(value, Leaf):
            if value.empty and cls.needs_value:
                raise ReadError("has no value", "write one, or remove the key")
            return {} if value.empty else cls.short(value)
        if isinstance(value, list):
            raise ReadError("expected keys below it, not a list", "remove the dash")
        return value


def known_keys(model: type[BaseModel]) -> list[str]:
    """Keys as written in a file."""
    return [field.alias or name for name, field in model.model_fields.items()]
