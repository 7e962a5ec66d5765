"""The answers to `-device help` and `-device TYPE,help`, in QEMU's form (observed on 10.0.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memd.cli.objects import property_line

if TYPE_CHECKING:
    from memd.config import Config
    from memd.qom import Property

_GROUPS = (
    (
        "Controller/Bridge/Hub",
        (
            'name "pci-bridge", bus PCI, desc "Standard PCI Bridge"',
            'name "pcie-root-port", bus PCI, desc "PCI Express Root Port"',
        ),
    ),
    ("USB", ('name "qemu-xhci", bus PCI',)),
    ("Storage", ('name "nvdimm", desc "DIMM memory module"',)),
    (
        "Misc",
        (
            'name "virtio-balloon-pci", bus PCI, alias "virtio-balloon"',
            'name "virtio-mem-pci", bus PCI',
            'name "virtio-pmem-pci", bus PCI',
        ),
    ),
    ("Uncategorized", ('name "pc-dimm", desc "DIMM memory module"',)),
)


def device_help(config: Config, driver: str | None) -> str:
    """The devices that can be plugged in, or the properties of one.

    Args:
        config: says whose they are.
        driver: the class that it is about, or None for the classes.

    Raises:
        QMPError: there is no such class, or the catalogue can't be read.
    """
    if driver is None:
        told = (
            f"{name} devices:\n" + "".join(f"{each}\n" for each in rows) for name, rows in _GROUPS
        )
        return "\n".join(told)
    from memd.devices import register
    from memd.devices.device import settable_properties
    from memd.qom import Tree

    tree = Tree(config.compat)
    register(tree)
    if config.unmodelled is not None:
        from memd.standin.catalogue import find_catalogue
        from memd.standin.types import CatalogueTypes, type_of_alias

        recorded = find_catalogue(config.compat, config.catalogue)
        tree.more_types = CatalogueTypes(recorded, tree)
        driver = type_of_alias(recorded, driver)
    lines = map(_line, settable_properties(tree, driver))
    return f"{driver} options:\n" + "".join(sorted(lines))


def _line(prop: Property) -> str:
    from memd.devices.device import DESCRIPTIONS

    # A device's own properties have defaults, and a description that their types tell.
    has_default = prop.default is not None
    description = prop.description or (has_default and DESCRIPTIONS.get(prop.type)) or ""
    if has_default:
        description += f" (default: {_written(prop.default)})"
    return property_line(prop, description)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
