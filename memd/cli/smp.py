"""`-smp`: the CPUs that a machine would have.

memd runs none; clients that query them get as many as were asked for.
Texts were observed on QEMU 10.0.2 (11.1.3 agrees).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.cli.keyval import parse_keyval
from memd.cli.report import Answered
from memd.json_types import JSONObject
from memd.qom.topology import ONE_CPU

if TYPE_CHECKING:
    from memd.qom.topology import Processors


def parse_smp(text: str) -> JSONObject:
    """The options in `-smp [cpus=]N[,maxcpus=N][,sockets=N]...`.

    Raises:
        QMPError: it can't be read.
        Answered: it asks what there is.
    """
    options, wants_help = parse_keyval(text, "cpus")
    if wants_help:
        lines = "".join(f"  {key}=<num>\n" for key in sorted(ONE_CPU))
        raise Answered(f"smp-opts options:\n{lines}")
    return options


def topology(options: JSONObject, processors: Processors) -> dict[str, int]:
    """Every level's count, "cpus" and "maxcpus".

    Args:
        options: those of every `-smp`, and of `-machine smp.cpus=N,...`.
        processors: what the machine can have.

    Raises:
        QMPError: there can't be such CPUs.
    """
    from memd.qapi.keyval import typed
    from memd.qom.machine_structs import count_cpus, visit_smp

    given = typed(options, dict.fromkeys(ONE_CPU, "int"), "smp")
    return count_cpus(visit_smp(given, "smp"), processors)
