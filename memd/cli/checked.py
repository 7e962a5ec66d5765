"""Options of a QEMU's command line that are checked and have no effect.

There is no firmware and no CPU that they could mean something to. Texts were
observed on QEMU 10.0.2.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from memd.cli.opts import Opts, OptsList, validate
from memd.errors import QMPError
from memd.qapi.numbers import parse_int64, parse_uuid

if TYPE_CHECKING:
    from memd.cli.options import CommandLine
    from memd.cli.reading import Given

_STRINGS = ("manufacturer", "version", "serial", "asset")
_SMBIOS = {
    0: {**dict.fromkeys(("vendor", "version", "date", "release"), "str"), "uefi": "bool"},
    1: dict.fromkeys((*_STRINGS[:3], "product", "uuid", "sku", "family"), "str"),
    2: dict.fromkeys((*_STRINGS, "product", "location"), "str"),
    3: dict.fromkeys((*_STRINGS, "sku"), "str"),
    4: {
        **dict.fromkeys((*_STRINGS, "sock_pfx", "part"), "str"),
        **dict.fromkeys(("max-speed", "current-speed", "processor-family"), "num"),
        "processor-id": "num",
    },
    8: {
        **dict.fromkeys(("internal_reference", "external_reference"), "str"),
        **dict.fromkeys(("connector_type", "port_type"), "num"),
    },
    9: {
        **dict.fromkeys(("slot_designation", "pcidev"), "str"),
        **dict.fromkeys(("slot_type", "slot_data_bus_width", "current_usage"), "num"),
        **dict.fromkeys(("slot_length", "slot_id"), "num"),
        **dict.fromkeys(("slot_characteristics1", "slot_characteristics2"), "num"),
    },
    11: dict.fromkeys(("value", "path"), "str"),
    17: {
        **dict.fromkeys(("loc_pfx", "bank", "manufacturer", "serial", "asset", "part"), "str"),
        "speed": "num",
    },
    41: {**dict.fromkeys(("designation", "kind", "pcidev"), "str"), "instance": "num"},
}
"""The keys of `-smbios type=N`, by N."""

_SMBIOS_ANY = OptsList("smbios", None, None)
_FW_CFG = OptsList("fw_cfg", "name", dict.fromkeys(("name", "file", "string", "gen_id"), "str"))
_LONGEST_NAME = 55
_ICOUNT = OptsList(
    "icount",
    "shift",
    {
        **dict.fromkeys(("shift", "rr", "rrfile", "rrsnapshot"), "str"),
        **dict.fromkeys(("align", "sleep"), "bool"),
    },
)
_MOST_SHIFT = 10
_OPTION_ROM = OptsList("option-rom", "romfile", {"romfile": "str", "bootindex": "num"})
_GLOBAL = OptsList("global", None, dict.fromkeys(("driver", "property", "value"), "str"))
_SHORT_GLOBAL = re.compile(r"[^.=]{1,63}\.[^=]{1,63}=")


def check_smbios(line: CommandLine, given: Given) -> None:
    """Check `-smbios`; raises `QMPError`."""
    opts = line.parse(_SMBIOS_ANY, given)
    if opts.has("file"):
        validate(opts, {"file": "str"})
        _read(opts.get("file") or "", "Cannot read SMBIOS file {path}")
        return
    if not opts.has("type"):
        raise QMPError("Must specify type= or file=")
    number = _number(opts, "type")
    if not 0 <= number < 1 << 8:
        raise QMPError("out of range!")
    if number not in _SMBIOS:
        raise QMPError(f"Don't know how to build fields for SMBIOS type {number}")
    validate(opts, {"type": "num", **_SMBIOS[number]})
    if number == 1 and opts.has("uuid") and parse_uuid(opts.get("uuid") or "") is None:
        raise QMPError("Invalid UUID")


def _number(opts: Opts, key: str) -> int:
    """A number among options of a list that takes any key; raises `QMPError`."""
    found = Opts()
    found.pairs = [each for each in opts.pairs if each[0] == key]
    validate(found, {key: "num"})
    return found.number(key) or 0


def check_fw_cfg(line: CommandLine, given: Given) -> None:
    """Check `-fw_cfg`; raises `QMPError`."""
    opts = line.parse(_FW_CFG, given)
    name = opts.get("name")
    if not name or sum(bool(opts.get(each)) for each in ("file", "string", "gen_id")) != 1:
        raise QMPError("name, plus exactly one of file, string and gen_id, are needed")
    if len(name) > _LONGEST_NAME:
        raise QMPError(f"name too long (max. {_LONGEST_NAME} char)")
    if not name.startswith("opt/"):
        line.config.report.warning(
            'externally provided fw_cfg item names should be prefixed with "opt/"', given.where
        )
    if opts.get("file"):
        _read(opts.get("file") or "", "can't load {path}: {reason}")


def check_icount(line: CommandLine, given: Given) -> None:
    """Check `-icount`; raises `QMPError`."""
    opts = line.parse(_ICOUNT, given)
    shift, replay = opts.get("shift"), opts.get("rr")
    if shift is None:
        if opts.has("align"):
            raise QMPError("Please specify shift option when using align")
    elif shift != "auto" and parse_int64(shift) not in range(_MOST_SHIFT + 1):
        raise QMPError("icount: Invalid shift value")
    if replay is not None and replay not in ("record", "replay"):
        raise QMPError(f"Invalid icount rr option: {replay}")
    if replay is not None:
        raise QMPError("memd records and replays nothing")


def check_option_rom(line: CommandLine, given: Given) -> None:
    """Check `-option-rom`; raises `QMPError`."""
    if not line.parse(_OPTION_ROM, given).has("romfile"):
        raise QMPError("Option ROM file is not specified")


def check_global(line: CommandLine, given: Given) -> None:
    """Check `-global`; raises `QMPError`."""
    if _SHORT_GLOBAL.match(given.value):
        return
    opts = line.parse(_GLOBAL, given)
    if not all(opts.has(each) for each in ("driver", "property", "value")):
        raise QMPError("options 'driver', 'property', and 'value' are required")


def _read(path: str, complaint: str) -> None:
    """Raise `QMPError` with a complaint where a file can't be read."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except IsADirectoryError as error:
        reason = f"Error reading file “{path}”: {error.strerror}"
    except OSError as error:
        reason = f"Failed to open file “{path}”: {error.strerror}"
    else:
        return
    raise QMPError(complaint.format(path=path, reason=reason))
