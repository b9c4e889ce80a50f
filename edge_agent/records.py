"""``typing.NamedTuple`` for the resident process, without importing ``typing``.

``typing`` costs 1.4 MiB of PSS and ``dataclasses`` 2.5 (``benchmarks/imports`` prints both); the resident's goal is 10.
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
            annotations = namespace.get("__annotations__", {})
            defaults = [namespace[field] for field in annotations if field in namespace]
            made = _namedtuple(name, annotations, defaults=defaults, module=namespace["__module__"])
            made.__annotations__ = annotations  # codec.py reads a record's shape from them
            made.__doc__ = namespace.get("__doc__")
            for key, value in namespace.items():
                if key not in annotations and not key.startswith("__"):
                    setattr(made, key, value)
            return made

    class Record(metaclass=_RecordType):
        """Base of a record: annotated fields, optional defaults, methods; immutable; a tuple."""


__all__ = ["Record"]
