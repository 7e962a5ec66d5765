"""HTTP sources, and the requests that all of them make."""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO
from urllib.parse import urlsplit

import urllib3
from urllib3 import BaseHTTPResponse

from memd.pages.directory import PIECE, read_name
from memd.pages.names import Version
from memd.pages.sources import SourceError, is_loopback

CONNECTIONS = 8
"""Requests to one host at once, as a rule; more wait for no other."""

_TIMEOUT = urllib3.Timeout(connect=3, read=5)
"""Seconds without a byte after which a request is made again: a machine waits for what is
asked for, 15 s in all until it is told that there is none."""

_RETRY = urllib3.Retry(
    total=2,
    backoff_factor=0.1,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,
    raise_on_status=False,
)

_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class Client:
    """Makes requests to a source, and logs in where it asks for that.

    Args:
        url: the source's, for messages.
        host: who may be sent what is kept to log in with.
    """

    def __init__(self, url: str, host: str) -> None:
        self.url = url
        self._host = host
        self._authorization = ""
        self._pool = urllib3.PoolManager(
            maxsize=CONNECTIONS,
            timeout=_TIMEOUT,
            retries=_RETRY,
            ssl_context=ssl.create_default_context(),
        )

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | IO[bytes] | None = None,
        stream: bool = False,
    ) -> BaseHTTPResponse:
        """Make a request; the answer, whatever its status.

        Args:
            method: such as "GET".
            url: of what.
            headers: of the request.
            body: what is sent.
            stream: whether the answer's content is yet to be read.

        Raises:
            SourceError: there is no answer.
        """
        answer = self._send(method, url, headers, body, stream)
        if answer.status == 401 and self._log_in(url, answer.headers.get("WWW-Authenticate", "")):
            answer.close()
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
            answer = self._send(method, url, headers, body, stream)
        return answer

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        body: bytes | IO[bytes] | None,
        stream: bool,
    ) -> BaseHTTPResponse:
        sent = dict(headers or {})
        if self._authorization and urlsplit(url).netloc == self._host:
            sent["Authorization"] = self._authorization
        try:
            return self._pool.request(
                method, url, headers=sent, body=body, preload_content=not stream
            )
        except urllib3.exceptions.HTTPError as error:
            raise self.failed(error) from None

    def _log_in(self, url: str, challenge: str) -> bool:
        """Do what an answer asks for; whether there is any use in asking again."""
        parts = urlsplit(url)
        kind, _space, rest = challenge.partition(" ")
        # What is secret goes to nobody but this host, and not in clear.
        safe = parts.netloc == self._host and (
            parts.scheme == "https" or is_loopback(parts.hostname or "")
        )
        basic = _credentials(self._host) if safe else None
        before = self._authorization
        if kind.lower() == "basic" and basic is not None:
            self._authorization = f"Basic {basic}"
        elif kind.lower() == "bearer":
            told = dict(_CHALLENGE.findall(rest))
            realm = told.pop("realm", "")
            where = urlsplit(realm)
            if where.scheme != "https" and not is_loopback(where.hostname or ""):
                return False
            headers = {"Authorization": f"Basic {basic}"} if basic is not None else {}
            fields = {name: told[name] for name in ("service", "scope") if name in told}
            try:
                answer = self._pool.request("GET", realm, fields=fields, headers=headers)
                given = json.loads(answer.data)
                token = given.get("token") or given["access_token"]
            except urllib3.exceptions.HTTPError as error:
                raise self.failed(error) from None
            except (ValueError, KeyError, AttributeError):
                return False
            self._authorization = f"Bearer {token}"
        return self._authorization != before

    def failed(self, error: Exception) -> SourceError:
        """What is said of a request that came to nothing."""
        reason = getattr(error, "reason", None) or error
        return SourceError(f"template source '{self.url}': {_words(reason)}")

    def refused(self, answer: BaseHTTPResponse, what: str) -> SourceError:
        """What is said of an answer that is none."""
        return SourceError(
            f"template source '{self.url}': {what}: {answer.status} {answer.reason or ''}".rstrip()
        )

    def part(self, url: str, offset: int, length: int) -> bytes:
        """A range of what is at a URL.

        Raises:
            SourceError: it is not to be had.
        """
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}
        answer = self.request("GET", url, headers=wanted, stream=True)
        try:
            if answer.status not in (200, 206):
                raise self.refused(answer, "a chunk")
            # One that knows no ranges would send all of it.
            data = answer.read(length + 1)
        except urllib3.exceptions.HTTPError as error:
            raise self.failed(error) from None
        finally:
            if answer.status == 206:
                answer.release_conn()
            else:
                answer.close()
        if answer.status == 200 and (offset or len(data) != length):
            raise SourceError(f"template source '{self.url}': it does not serve ranges")
        if len(data) != length:
            raise SourceError(f"template source '{self.url}': a chunk is cut short")
        return data

    @contextmanager
    def pieces(self, url: str, what: str) -> Iterator[Iterator[bytes]]:
        """All of what is at a URL.

        Raises:
            SourceError: it is not to be had.
        """
        answer = self.request("GET", url, stream=True)
        try:
            if answer.status != 200:
                raise self.refused(answer, what)
            yield answer.stream(PIECE)
        except urllib3.exceptions.HTTPError as error:
            raise self.failed(error) from None
        finally:
            answer.close()


def _words(error: object) -> str:
    """Why a request came to nothing, without the objects that the library puts into its texts."""
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        cause = error.__cause__ or error.__context__
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "it does not answer in time"
    return str(error).rpartition("object at 0x")[2].rpartition(">: ")[2] or type(error).__name__


class Http:
    """The source `http(s)://…`: a template store behind a file server that serves ranges.

    Args:
        url: as it was given.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._base = url.rstrip("/")
        self._client = Client(url, urlsplit(url).netloc)

    def find(self, name: str) -> Version | None:
        """See `Source`."""
        answer = self._client.request("GET", f"{self._base}/names/{name}")
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise self._client.refused(answer, f"template '{name}'")
        return read_name(self.url, name, answer.data)

    def part(self, digest: str, offset: int, length: int) -> bytes:
        """See `Source`."""
        return self._client.part(f"{self._base}/blobs/{digest}", offset, length)

    @contextmanager
    def blob(self, digest: str) -> Iterator[Iterator[bytes]]:
        """See `Source`."""
        with self._client.pieces(f"{self._base}/blobs/{digest}", f"blob {digest}") as pieces:
            yield pieces

    def check(self) -> None:
        """See `Source`."""
        answer = self._client.request("GET", f"{self._base}/format")
        if answer.status != 200:
            raise self._client.refused(answer, "it serves no template store")


def _credentials(host: str) -> str | None:
    """What to log in to a registry with, as for docker(1), podman(1) and oras(1).

    Args:
        host: with its port, as the file names it.

    Returns:
        user and password in base64, None where there are none.
    """
    places = [os.environ.get("REGISTRY_AUTH_FILE", "")]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        places.append(os.path.join(runtime, "containers/auth.json"))
    docker = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    places.append(os.path.join(docker, "config.json"))
    for place in filter(None, places):
        try:
            with open(place, "rb") as file:
                auth = json.load(file)["auths"][host]["auth"]
            base64.b64decode(auth, validate=True)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return str(auth)
    return None
