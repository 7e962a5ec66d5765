"""`-smp`: the CPUs that a machine would have.

memd runs none; clients that query them get as many as were asked for.
Texts were observed on QEMU 10.0.2 (11.1.3 agrees).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.cli.keyval import parse_keyval
from memd.cli.report import Answered, CommandLineError
from memd.errors import QMPError
from memd.json_types import JSONObject

if TYPE_CHECKING:
    from memd.qom.machine_structs import Processors

_KEYS = (
    *("books", "clusters", "cores", "cpus", "dies", "drawers", "maxcpus", "modules", "sockets"),
    "threads",
)


class SmpOption:
    """The `-smp` of a command line; several add up, and of a key the last counts."""

    def __init__(self) -> None:
        self._options: JSONObject = {}

    def take(self, text: str) -> None:
        """Take `-smp [cpus=]N[,maxcpus=N][,sockets=N]...`.

        Raises:
            QMPError: it can't be read.
            Answered: it asks what there is.
        """
        options, wants_help = parse_keyval(text, "cpus")
        if wants_help:
            lines = "".join(f"  {key}=<num>\n" for key in _KEYS)
            raise Answered(f"smp-opts options:\n{lines}")
        self._options.update(options)

    def add(self, members: JSONObject) -> None:
        """Take `smp.cpus=N,...` of `-machine`."""
        self._options.update(members)

    def resolve(self, processors: Processors | None = None) -> dict[str, int]:
        """The topology: every level's count, "cpus" and "maxcpus".

        Args:
            processors: what the machine can have; the machine `none` where not
                given.

        Raises:
            CommandLineError: there can't be such CPUs.
        """
        from memd.qapi.numbers import parse_int64
        from memd.qom.machine_structs import NO_PROCESSORS, count_cpus

        try:
            numbers: JSONObject = {}
            for name, text in self._options.items():
                if not isinstance(text, str):
                    raise QMPError(f"Parameters 'smp.{name}.*' are unexpected")
                number = parse_int64(text)
                if number is None and name in _KEYS:
                    raise QMPError(f"Parameter 'smp.{name}' expects integer")
                numbers[name] = number
            return count_cpus(numbers, "smp", processors or NO_PROCESSORS)
        except QMPError as error:
            raise CommandLineError(error.desc) from None
