"""`-device`: what is plugged into the machine before it starts.

    pc-dimm,id=d0,memdev=m0,slot=1
    {"driver": "pc-dimm", "id": "d0", "memdev": "m0", "slot": 1}

In the first spelling all values are text, and what a property makes of them is
its own affair; in the second they have their types. Texts and orders were
observed on QEMU 10.0.2.
"""

from __future__ import annotations

from memd.cli.keyval import HELP
from memd.cli.opts import OptsList, parse_opts
from memd.cli.reading import Given
from memd.cli.report import Answered, CommandLineError
from memd.config import Config, DeviceOption
from memd.errors import QMPError, missing

DEVICE = OptsList("device", "driver", None)


def parse_device(given: Given, config: Config, ids: set[str]) -> DeviceOption:
    """Take `-device` apart.

    Args:
        given: the option.
        config: says whose devices there are; its report is told of keys without a value.
        ids: those of earlier devices in QEMU's spelling; this one's is added.

    Raises:
        QMPError: it can't be read.
        Answered: it asks what there is.
        CommandLineError: it asks of a device that there is not.
    """
    text = given.value
    if text.startswith("{"):
        from memd.cli.json_argument import parse_json_argument

        options = parse_json_argument(text, config.compat)
        if type(options.get("driver")) is not str:
            raise missing("driver")
        return DeviceOption(given.where, True, options)
    opts = parse_opts(DEVICE, text, None, ids)
    name = opts.get("driver")
    if name is not None and any(key == name or opts.has(key) for key in HELP):
        from memd.cli.device_help import device_help

        try:
            raise Answered(device_help(config, None if name in HELP else name))
        except QMPError as error:
            raise CommandLineError(error.desc, where=given.where, status=0) from None
    opts = parse_opts(DEVICE, text, given.warn(config.report), ids)
    if name is None:
        raise missing("driver")
    if opts.id is not None:
        ids.add(opts.id)
    return DeviceOption(given.where, False, dict(opts.with_id()))
