"""`NamedTuple` as `typing` has it, but for the annotations, which nobody looks at.

`typing` compiles each of them, which takes longer than all else that a class is made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from collections import namedtuple

    class _Maker(type):
        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            fields = body["__annotations__"]
            defaults = [body[each] for each in fields if each in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            for each in body.keys() - fields.keys() - {"__module__", "__annotations__"}:
                setattr(made, each, body[each])
            return made

    NamedTuple = type.__new__(_Maker, "NamedTuple", (), {})
