"""The properties of `-accel`, which are checked and have no effect.

Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from memd.cli.opts import Opts
from memd.compat import Compat
from memd.errors import QMPError
from memd.qapi.visit import Visit, visit_enum
from memd.qom import Tree
from memd.standin.property_text import VISITS

_KEY = "accel"
_OWN: dict[str, Visit] = {
    # What is listed as an "int".
    "tb-size": VISITS["uint32"],
    "kernel-irqchip": visit_enum(("on", "off", "split")),
    "notify-vmexit": visit_enum(("run", "internal-error", "disable")),
}
_THREADS = ("single", "multi")


def check_accel(kind: str, opts: Opts, compat: Compat) -> None:
    """Check what follows the name of an accelerator.

    Args:
        kind: its name.
        opts: what was given, the name among it.
        compat: whose properties.

    Raises:
        QMPError: it has no such property, or this has no such value.
    """
    types = Tree(compat).types()
    # Of most that this host never has no type is known.
    known = (types.get(f"{kind}-accel") or types["accel"]).all_properties
    for name, text in opts.pairs:
        if name == _KEY:
            continue
        if name not in known:
            raise QMPError(f"Property '{kind}-accel.{name}' not found")
        visit = _OWN.get(name) or VISITS.get(known[name].type)
        value = text if visit is None else visit(text, name)
        if name == "thread" and value not in _THREADS:
            raise QMPError(f"Invalid 'thread' setting {value}")
        if name == "dirty-ring-size" and type(value) is int and value & (value - 1):
            raise QMPError("dirty-ring-size must be a power of two.")
