"""A real OCI registry, on a port of the loopback."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.differential.server import PATIENCE
from tests.ports import free_port

_SECRET = "$2y$04$Qef62lgkQgvS6qKhrY2z1OiyVmzSF8XxLwt0Q2uWqsWj63aGQ1Bs6"


class Registry:
    """Debian's docker-registry.

    Args:
        place: a directory for what it keeps.
        user: user and password that one has to log in with, None for nobody.
        tls: certificate and key, None for clear text.
    """

    def __init__(
        self,
        place: Path,
        *,
        user: tuple[str, str] | None = None,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        program = shutil.which("docker-registry")
        if program is None:
            pytest.skip("needs docker-registry: it is not on PATH")
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        settings: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(place / "registry")}},
            "http": {"addr": self.host},
        }
        if tls is not None:
            settings["http"] = {
                "addr": self.host,
                "tls": {"certificate": str(tls[0]), "key": str(tls[1])},
            }
        if user is not None:
            passwords = place / "htpasswd"
            # Of the password "secret"; only bcrypt is taken.
            passwords.write_text(f"{user[0]}:{_SECRET}\n")
            settings["auth"] = {"htpasswd": {"realm": "test", "path": str(passwords)}}
        # What is JSON is YAML.
        config = place / "config.yml"
        config.write_text(json.dumps(settings))
        self._process = subprocess.Popen(
            [program, "serve", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.close()
                    raise
                time.sleep(0.02)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def log_in(directory: Path, host: str, user: str, password: str) -> Path:
    """A file with what to log in with, as `docker login` writes it."""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    path = directory / "auth.json"
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return path
