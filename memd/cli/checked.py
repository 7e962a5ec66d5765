"""Options of a QEMU's command line that are checked, most of which have no effect.

There is no firmware and no CPU that they could mean something to. Texts were
observed on QEMU 10.0.2.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from memd.cli.opts import OptsList, validate
from memd.config import Global
from memd.errors import QMPError, not_read
from memd.hostmem.deadline import read_at_start
from memd.qapi.numbers import parse_int64, parse_uuid

if TYPE_CHECKING:
    from memd.cli.qemu_system import QemuCommandLine
    from memd.cli.reading import Given

_SMBIOS = {
    0: "vendor version date release uefi=bool",
    1: "manufacturer version serial product uuid sku family",
    2: "manufacturer version serial asset product location",
    3: "manufacturer version serial asset sku",
    4: "manufacturer version serial asset sock_pfx part max-speed=num current-speed=num"
    " processor-family=num processor-id=num",
    8: "internal_reference external_reference connector_type=num port_type=num",
    9: "slot_designation pcidev slot_type=num slot_data_bus_width=num current_usage=num"
    " slot_length=num slot_id=num slot_characteristics1=num slot_characteristics2=num",
    11: "value path",
    17: "loc_pfx bank manufacturer serial asset part speed=num",
    41: "designation kind pcidev instance=num",
}
"""The keys of `-smbios type=N`, by N, with the kinds of their values, where not "str"."""

_SMBIOS_ANY = OptsList("smbios", None, None)
_LONGEST_NAME = 55
_MOST_SHIFT = 10
_SHORT_GLOBAL = r"([^.=]{1,63})\.([^=]{1,63})=(.*)"


def take_smbios(line: QemuCommandLine, given: Given) -> None:
    """Check `-smbios`, which may tell the machine's UUID; raises `QMPError`."""
    opts = line.parse(_SMBIOS_ANY, given)
    if opts.has("file"):
        validate(opts, {"file": "str"})
        _read(opts.get("file") or "", "Cannot read SMBIOS file {path}")
        return
    if not opts.has("type"):
        raise QMPError("Must specify type= or file=")
    number = opts.number("type") or 0
    if not 0 <= number < 1 << 8:
        raise QMPError("out of range!")
    if number not in _SMBIOS:
        raise QMPError(f"Don't know how to build fields for SMBIOS type {number}")
    keys = (each.partition("=") for each in f"type=num {_SMBIOS[number]}".split())
    validate(opts, {key: kind or "str" for key, _equals, kind in keys})
    if number == 1 and opts.has("uuid"):
        uuid = parse_uuid(opts.get("uuid") or "")
        if uuid is None:
            raise QMPError("Invalid UUID")
        line.config.uuid = uuid


def take_fw_cfg(line: QemuCommandLine, given: Given) -> None:
    """Check `-fw_cfg`; raises `QMPError`."""
    opts = line.checked(given)
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


def take_icount(line: QemuCommandLine, given: Given) -> None:
    """Check `-icount`; raises `QMPError`."""
    opts = line.checked(given)
    shift, replay = opts.get("shift"), opts.get("rr")
    if shift is None:
        if opts.has("align"):
            raise QMPError("Please specify shift option when using align")
    elif shift != "auto" and parse_int64(shift) not in range(_MOST_SHIFT + 1):
        raise QMPError("icount: Invalid shift value")
    if replay in ("record", "replay"):
        raise QMPError("memd records and replays nothing")
    if replay is not None:
        raise QMPError(f"Invalid icount rr option: {replay}")


def take_option_rom(line: QemuCommandLine, given: Given) -> None:
    """Check `-option-rom`; raises `QMPError`."""
    if not line.checked(given).has("romfile"):
        raise QMPError("Option ROM file is not specified")


def take_global(line: QemuCommandLine, given: Given) -> None:
    """Take `-global`; raises `QMPError`."""
    match = re.match(_SHORT_GLOBAL, given.value, re.DOTALL)
    if match is not None:
        line.config.globals.append(Global(*match.groups()))
        return
    values = map(line.checked(given).get, Global._fields)
    found = [each for each in values if each is not None]
    if len(found) < len(Global._fields):
        raise QMPError("options 'driver', 'property', and 'value' are required")
    line.config.globals.append(Global(*found))


def _read(path: str, complaint: str) -> None:
    """Raise `QMPError` with a complaint where a file can't be read."""
    try:
        read_at_start(path, 1)
    except OSError as error:
        reason = not_read(path, error)
        raise QMPError(complaint.format(path=path, reason=reason)) from None
