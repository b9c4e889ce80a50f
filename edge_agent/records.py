"""``typing.NamedTuple`` for the resident process, without importing ``typing``.

``typing`` costs 1.4 MiB of PSS, ``dataclasses`` 2.5 (``make bench`` prints both); the resident's whole goal is 10.
Type checkers see the real ``typing.NamedTuple``; at run time the same class syntax makes the same tuple.
"""

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import NamedTuple as Record
else:
    from collections import namedtuple as _namedtuple

    class _RecordType(type):
        def __new__(mcs, name, bases, namespace):
            if not bases:
                return super().__new__(mcs, name, bases, namespace)
            fields = list(namespace.get("__annotations__", {}))
            defaults = [namespace[field] for field in fields if field in namespace]
            made = _namedtuple(name, fields, defaults=defaults, module=namespace["__module__"])
            for key, value in namespace.items():
                if key not in fields and key not in ("__annotations__", "__classcell__"):
                    setattr(made, key, value)
            return made

    class Record(metaclass=_RecordType):
        """Base of a record: annotated fields, optional defaults, methods; immutable; a tuple."""

__all__ = ["Record"]
