"""`-numa`: the nodes of a machine, and which memory is whose."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from memd.cli.opts import Opts, OptsList
from memd.cli.reading import Given, located
from memd.config import Config, NumaNode
from memd.devices.numa import NumaNodes
from memd.json_types import JSONObject

if TYPE_CHECKING:
    from memd.devices.kinds import MachineKind

NUMA = OptsList("numa", "type", None)


def numa_nodes(
    given: Sequence[tuple[Given, Opts]],
    machine: MachineKind,
    backends: Container[str],
    positions: Sequence[JSONObject],
    config: Config,
    *,
    hmat: bool = False,
) -> list[NumaNode]:
    """The nodes that `-numa` options describe, by number; none while clients may add some.

    Args:
        given: the options, and what is in each.
        machine: whose nodes they are.
        backends: the ids of the memory backends that there will be.
        positions: of the CPUs that the machine can come to have, by their numbers.
        config: whose release's schema is meant; its report is told of CPUs without a node,
            and the options are kept there for a machine that clients complete.
        hmat: whether nodes may say which is the nearest with CPUs.

    Raises:
        QMPError: there can't be such nodes.
        CommandLineError: it is one option's fault.
    """
    nodes = NumaNodes(machine, backends, positions, hmat=hmat)
    for each, opts in given:
        from memd.qapi import load_schema
        from memd.qapi.opts import check_opts

        with located(each.where):
            options = check_opts(
                load_schema(config.compat).object_type("NumaOptions"), opts.with_id()
            )
            nodes.take(options)
        if "mem" in options:
            config.report.warning(
                "Parameter -numa node,mem is deprecated, use -numa node,memdev instead", each.where
            )
        config.numa_options.append((each.where, options))
    if config.preconfig:
        return []
    found = nodes.finish()
    nodes.warn(config.report)
    return found
