"""Which function runs which command. A test holds it against the schema."""

from __future__ import annotations

from collections.abc import Callable

from memd.commands import (
    block,
    chardev,
    control,
    device,
    machine,
    memdev,
    migration,
    misc,
    probing,
    qom,
    template,
    template_machine,
)
from memd.commands.daemon import Daemon
from memd.json_types import JSON, JSONObject
from memd.session import Session

Handler = Callable[[Daemon, JSONObject], JSON]
"""(daemon, checked arguments) to the command's value or `Outcome`, or a `Command`."""

SessionHandler = Callable[[Daemon, Session, JSONObject], JSON]
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
    "query-uuid": lambda daemon, args: {"UUID": daemon.config.uuid},
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
    "x-memdev-explain": qom.x_memdev_explain,
    "x-memdev-discard": memdev.x_memdev_discard,
    "x-memdev-stat": memdev.x_memdev_stat,
    "x-memdev-map": memdev.x_memdev_map,
    "x-memdev-save": memdev.x_memdev_save,
    "x-memdev-lost": memdev.x_memdev_lost,
    "x-pool-query": memdev.x_pool_query,
    "x-hugepage-query": memdev.x_hugepage_query,
    "x-template-save": template_machine.x_template_save,
    "x-template-serve": template_machine.x_template_serve,
    "x-template-status": template.x_template_status,
    "x-template-list": template.x_template_list,
    "x-template-query": template.x_template_query,
    "x-template-verify": template.x_template_verify,
    "x-template-delete": template.x_template_delete,
    "x-template-push": template.x_template_push,
    "x-template-pull": template.x_template_pull,
    "x-template-export": template.x_template_export,
    "human-monitor-command": misc.human_monitor_command,
    "query-command-line-options": probing.query_command_line_options,
    "query-machines": probing.query_machines,
    "query-cpus-fast": probing.query_cpus_fast,
    "query-hotpluggable-cpus": probing.query_hotpluggable_cpus,
    **dict.fromkeys(
        ("query-iothreads", "query-jobs", "query-block", "query-named-block-nodes"),
        lambda daemon, args: [],
    ),
    "query-accelerators": probing.query_accelerators,
    "set-action": machine.set_action,
    "system_powerdown": machine.system_powerdown,
    "system_reset": machine.system_reset,
    "system_wakeup": machine.system_wakeup,
    "device-list-properties": probing.device_list_properties,
    "x-exit-preconfig": probing.x_exit_preconfig,
    "device_add": device.device_add,
    "device_del": lambda daemon, args: daemon.machine.del_device(args["id"]),
    "query-memory-devices": lambda daemon, args: daemon.machine.devices(),
    "query-memory-size-summary": lambda daemon, args: daemon.machine.memory_summary(),
    "balloon": device.balloon,
    "query-balloon": device.query_balloon,
    "blockdev-add": block.blockdev_add,
    "query-chardev": chardev.query_chardev,
    "query-yank": chardev.query_yank,
    "yank": chardev.yank,
    "query-migrate-capabilities": migration.query_migrate_capabilities,
    "migrate-set-capabilities": migration.migrate_set_capabilities,
    "migrate-recover": migration.migrate_recover,
    "migrate-pause": migration.migrate_pause,
    "remove-fd": misc.remove_fd,
    "query-fdsets": lambda daemon, args: daemon.fdsets.query(),
}

SESSION_HANDLERS: dict[str, SessionHandler] = {
    "qmp_capabilities": control.qmp_capabilities,
    "getfd": misc.getfd,
    "closefd": misc.closefd,
    "add-fd": misc.add_fd,
    "x-memdev-export": memdev.x_memdev_export,
    "x-memdev-read": memdev.x_memdev_read,
    "x-memdev-write": memdev.x_memdev_write,
}
