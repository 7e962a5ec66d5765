"""The address of `--metrics`."""

from __future__ import annotations

from memd.config import Chardev
from memd.errors import QMPError


def metrics_address(text: str) -> Chardev:
    """The address that the option names: `unix:PATH` or `HOST:PORT`.

    Raises:
        QMPError: it is neither.
    """
    chardev = Chardev("metrics", "unix", server=True, where=f"--metrics {text}")
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path:
            raise QMPError("--metrics: a path is missing after 'unix:'")
        return chardev._replace(path=path)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise QMPError(f"--metrics: '{text}' is neither unix:PATH nor HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return chardev._replace(kind="tcp", host=host, port=port)
