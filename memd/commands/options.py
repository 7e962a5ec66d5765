"""`query-command-line-options`: the options of the command line that take parameters."""

from __future__ import annotations

from memd.commands.daemon import Daemon
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject

_OPTIONS: dict[str, dict[str, str]] = {
    "chardev": {
        "backend": "string",
        "path": "string",
        "host": "string",
        "port": "string",
        "fd": "string",
        "ipv4": "boolean",
        "ipv6": "boolean",
        "wait": "boolean",
        "server": "boolean",
        "tls-creds": "string",
    },
    "mon": {"mode": "string", "chardev": "string", "pretty": "boolean"},
    "name": {"guest": "string", "process": "string", "debug-threads": "boolean"},
    # Their parameters are the types' own; QEMU lists none either.
    "object": {},
    "device": {},
    "numa": {},
    "memory": {"size": "size", "slots": "number", "maxmem": "size"},
    "smp-opts": dict.fromkeys(
        (
            *("cpus", "drawers", "books", "sockets", "dies", "clusters", "modules", "cores"),
            *("threads", "maxcpus"),
        ),
        "number",
    ),
}
"""Option to parameter to its QAPI `CommandLineParameterType`."""


def query_command_line_options(daemon: Daemon, args: JSONObject) -> JSON:
    """The parameters of one option, or of all."""
    option = args.get("option")
    if option is not None and option not in _OPTIONS:
        raise QMPError(f"invalid option name: {option}")
    return [
        {
            "option": name,
            "parameters": [{"name": key, "type": kind} for key, kind in parameters.items()],
        }
        for name, parameters in _OPTIONS.items()
        if option is None or option == name
    ]
