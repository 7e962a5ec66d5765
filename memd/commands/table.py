"""Which function runs which command. A test holds it against the schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memd.commands import control, hmp, machine, misc, options, qom
from memd.commands.daemon import Daemon
from memd.outcome import JSON
from memd.session import Session

Handler = Callable[[Daemon, dict[str, Any]], JSON]
"""(daemon, checked arguments) to the command's value, `Outcome` or `Blocking`."""

SessionHandler = Callable[[Daemon, Session, dict[str, Any]], JSON]
"""The same for commands that concern the client that sends them."""

HANDLERS: dict[str, Handler] = {
    "query-version": control.query_version,
    "query-commands": control.query_commands,
    "query-qmp-schema": control.query_qmp_schema,
    "quit": control.quit,
    "query-status": machine.query_status,
    "stop": machine.stop,
    "cont": machine.cont,
    "query-name": machine.query_name,
    "query-uuid": machine.query_uuid,
    "query-target": machine.query_target,
    "query-kvm": machine.query_kvm,
    "object-add": qom.object_add,
    "object-del": qom.object_del,
    "qom-get": qom.qom_get,
    "qom-set": qom.qom_set,
    "qom-list": qom.qom_list,
    "qom-list-get": qom.qom_list_get,
    "qom-list-types": qom.qom_list_types,
    "qom-list-properties": qom.qom_list_properties,
    "query-memdev": qom.query_memdev,
    "human-monitor-command": hmp.human_monitor_command,
    "query-command-line-options": options.query_command_line_options,
    "remove-fd": misc.remove_fd,
    "query-fdsets": misc.query_fdsets,
}

SESSION_HANDLERS: dict[str, SessionHandler] = {
    "qmp_capabilities": control.qmp_capabilities,
    "getfd": misc.getfd,
    "closefd": misc.closefd,
    "add-fd": misc.add_fd,
}
