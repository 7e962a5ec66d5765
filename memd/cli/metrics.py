"""The address of `--metrics`."""

from __future__ import annotations

from memd.config import Chardev
from memd.errors import QMPError


def metrics_address(text: str) -> Chardev:
    """The address that the option names: `unix:PATH` or `HOST:PORT`.

    Raises:
        QMPError: it is neither.
    """
    chardev = Chardev("metrics", "unix", spec=text, where=f"--metrics {text}")
    chardev.server = True
    if text.startswith("unix:"):
        chardev.path = text[len("unix:") :]
        if not chardev.path:
            raise QMPError("--metrics: a path is missing after 'unix:'")
        return chardev
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise QMPError(f"--metrics: '{text}' is neither unix:PATH nor HOST:PORT")
    chardev.kind, chardev.port = "tcp", port
    chardev.host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    return chardev
