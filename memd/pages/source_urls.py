"""Where templates come from that the store has not: `--template-source URL`."""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from memd.errors import QMPError
from memd.pages.sources import Source


def open_source(url: str) -> Source:
    """The source that a URL names; nothing is asked of it yet.

    Raises:
        QMPError: it is of no kind that there is, or a library is missing.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise QMPError(f"'{url}' is not a template source: {error}") from None
    if parts.username is not None or parts.query or parts.fragment:
        # Everybody on the host reads a command line.
        raise QMPError(f"'{url}' is not a template source: it may have no user, query or fragment")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not os.path.isabs(parts.path):
            raise QMPError(f"'{url}' is not a template source: file:/PATH")
        from memd.pages.directory import Directory

        return Directory(url, unquote(parts.path))
    if parts.scheme in ("http", "https", "oci"):
        if not parts.hostname:
            raise QMPError(f"'{url}' is not a template source: it names no host")
        try:
            from memd.pages.http import Http
            from memd.pages.oci import Oci
        except ImportError as error:
            raise QMPError(
                f"template source '{url}' needs {error.name}",
                hint="the extra templates brings it: in memd's source tree, pip install"
                " '.[templates]'",
            ) from None
        if parts.scheme == "oci":
            return Oci(url, parts.hostname, port, parts.path.strip("/"))
        return Http(url)
    raise QMPError(f"'{url}' is not a template source: oci://, https://, http:// or file:")
