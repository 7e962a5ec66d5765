"""HTTP sources, and the requests that all of them make."""

from __future__ import annotations

import base64
import errno
import http.client
import io
import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from typing import IO, Any
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3
from urllib3 import BaseHTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection

from memd.pages.directory import MOST_NAME, PIECE, read_name
from memd.pages.names import Version
from memd.pages.sources import Source, SourceError, is_loopback

CONNECTIONS = 8
"""Requests to one host at once, as a rule; more wait for no other."""

PATIENCE = 5.0
"""Seconds without a byte after which a request is made again: a machine waits for what is
asked for, 15 s in all until it is told that there is none."""

_AGAIN = 2
"""Times that a request is made again, or a blob is gone on with after less than 1 MiB."""

_LEAST = 4096
"""Bytes a second that have to come while an answer is waited for. A link of 128 kbit/s brings
four at once."""

_RETRY = urllib3.Retry(
    total=_AGAIN,
    # A machine waits, however late a server wants a request to come.
    respect_retry_after_header=False,
    backoff_factor=0.1,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,
    raise_on_status=False,
)

_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class _Steady(io.RawIOBase):
    """The bytes of a connection; a `TimeoutError` where they come too slowly.

    Only the time in which it is waited for counts, so that one who reads slowly may.

    Args:
        raw: the connection's stream.
        patience: seconds over which the rate is taken.
    """

    def __init__(self, raw: io.RawIOBase, patience: float) -> None:
        self._raw = raw
        self._patience = patience
        self._waited = 0.0
        self._came = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        began = time.monotonic()
        count: int | None = self._raw.readinto(buffer)
        self._waited += time.monotonic() - began
        self._came += count or 0
        if self._waited >= self._patience:
            if count and self._came < _LEAST * self._patience:
                raise TimeoutError(
                    errno.ETIMEDOUT, f"it sends less than {_LEAST >> 10} KiB a second"
                )
            self._waited, self._came = 0.0, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        patience = sock.gettimeout()
        assert patience is not None
        self.fp: io.BufferedReader = io.BufferedReader(_Steady(self.fp.detach(), patience))


class _Clear(urllib3.HTTPConnectionPool):
    class ConnectionCls(HTTPConnection):
        """One whose answers come steadily."""

        response_class = _Answer


class _Secure(urllib3.HTTPSConnectionPool):
    class ConnectionCls(HTTPSConnection):
        """One whose answers come steadily."""

        response_class = _Answer


class HttpClient:
    """Makes requests to a source, and logs in where it asks for that.

    Args:
        url: the source's, for messages.
        host: who may be sent what is kept to log in with.
        patience: see `PATIENCE`.
    """

    def __init__(self, url: str, host: str, patience: float = PATIENCE) -> None:
        self.url = url
        self._host = host
        self._authorization = ""
        self._logging_in = threading.Lock()
        self._pool = urllib3.PoolManager(
            maxsize=CONNECTIONS,
            timeout=urllib3.Timeout(connect=3, read=patience),
            retries=_RETRY,
            ssl_context=ssl.create_default_context(),
        )
        self._pool.pool_classes_by_scheme = {"http": _Clear, "https": _Secure}

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | IO[bytes] | None = None,
        stream: bool = False,
        what: str = "",
        expected: Collection[int] = (),
    ) -> BaseHTTPResponse:
        """Make a request, and give its answer.

        Args:
            method: such as "GET".
            url: of what.
            headers: of the request.
            body: what is sent.
            stream: whether the answer's content is yet to be read, and not of no use.
            what: what is asked for, for messages.
            expected: the statuses that the answer may have; none for any.

        Raises:
            SourceError: there is no answer, or it has another status.
        """

        def send(authorization: str) -> BaseHTTPResponse:
            told = dict(headers or {})
            if authorization and urlsplit(url).netloc == self._host:
                told["Authorization"] = authorization
            with self._failures():
                answer = self._ask(method, url, headers=told, body=body)
                if not stream and len(answer.read(MOST_NAME + 1)) > MOST_NAME:
                    answer.close()
                return answer

        sent = self._authorization
        answer = send(sent)
        if answer.status == 401 and self._log_in(url, answer, sent):
            answer.close()
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
            answer = send(self._authorization)
        if expected and answer.status not in expected:
            answer.close()
            raise self.refused(answer, what)
        return answer

    def _ask(self, method: str, url: str, **more: Any) -> BaseHTTPResponse:
        # Decoded, an answer could become as long as it likes.
        return self._pool.request(method, url, preload_content=False, decode_content=False, **more)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Have the library's errors, for a request that has no answer, raised as `SourceError`."""
        try:
            yield
        except urllib3.exceptions.HTTPError as error:
            reason = _words(getattr(error, "reason", None) or error)
            raise SourceError(f"template source '{self.url}': {reason}") from None

    def _log_in(self, url: str, answer: BaseHTTPResponse, sent: str) -> bool:
        """Do what an answer asks for; whether there is any use in asking again.

        Args:
            url: what was asked for.
            answer: the refusal.
            sent: the authorization that was refused.
        """
        try:
            where = urlsplit(urljoin(url, answer.geturl() or ""))
            # A server that a registry redirects to gets no password.
            if where.netloc != self._host:
                return False
            with self._logging_in:
                # Else another thread has logged in meanwhile.
                if self._authorization == sent:
                    challenge = answer.headers.get("WWW-Authenticate", "")
                    self._authorization = self._authorize(where, challenge)
                return self._authorization not in ("", sent)
        except (ValueError, KeyError, AttributeError):
            return False

    def _authorize(self, where: SplitResult, challenge: str) -> str:
        """What to send as a challenge asks for it; "" for nothing.

        Raises:
            SourceError: the server that gives tokens can't be reached.
            ValueError, KeyError, AttributeError: the challenge makes no sense, or the token.
        """
        kind, _space, rest = challenge.partition(" ")
        # What is secret does not go in clear.
        safe = where.scheme == "https" or is_loopback(where.hostname or "")
        basic = _credentials(self._host) if safe else None
        if kind.lower() == "basic":
            return "" if basic is None else f"Basic {basic}"
        if kind.lower() != "bearer":
            return ""
        told = dict(_CHALLENGE.findall(rest))
        realm = told.pop("realm", "")
        there = urlsplit(realm)
        if there.scheme != "https" and not is_loopback(there.hostname or ""):
            return ""
        headers = {"Authorization": f"Basic {basic}"} if basic is not None else {}
        fields = {name: told[name] for name in ("service", "scope") if name in told}
        with self._failures():
            given = json.loads(
                self._ask("GET", realm, fields=fields, headers=headers).read(MOST_NAME)
            )
        return f"Bearer {given.get('token') or given['access_token']}"

    def refused(self, answer: BaseHTTPResponse, what: str) -> SourceError:
        """The error for an answer of another status than expected."""
        return SourceError(
            f"template source '{self.url}': {what}: {answer.status} {answer.reason or ''}".rstrip()
        )

    def find(self, url: str, name: str, headers: Mapping[str, str] | None = None) -> bytes | None:
        """The content at a URL about a template, None if there is none.

        Raises:
            SourceError: that can't be told.
        """
        answer = self.request(
            "GET",
            url,
            headers=headers,
            stream=True,
            what=f"template '{name}'",
            expected=(200, 404),
        )
        with self._failures():
            data = answer.read(MOST_NAME + 1)
        if len(data) > MOST_NAME:
            answer.close()
            raise SourceError(
                f"template source '{self.url}': what it says of '{name}' has more than"
                f" {MOST_NAME} bytes"
            )
        return data if answer.status == 200 else None

    def part(self, url: str, offset: int, length: int) -> bytes:
        """A range of what is at a URL.

        Raises:
            SourceError: it is not available.
        """
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}
        answer = self.request(
            "GET", url, headers=wanted, stream=True, what="a chunk", expected=(200, 206)
        )
        try:
            with self._failures():
                # One that knows no ranges would send all of it.
                data = answer.read(length + 1)
        finally:
            if answer.status == 206:
                answer.release_conn()
            else:
                answer.close()
        if answer.status == 200 and (offset or len(data) != length):
            raise self._no_ranges()
        if len(data) != length:
            raise SourceError(f"template source '{self.url}': a chunk is cut short")
        return data

    def _no_ranges(self) -> SourceError:
        return SourceError(f"template source '{self.url}': it does not serve ranges")

    def pieces(self, url: str, what: str) -> Generator[bytes, None, None]:
        """All of what is at a URL; where a connection ends early, another one goes on.

        Raises:
            SourceError: it is not available.
        """
        done, again = 0, _AGAIN
        while True:
            headers = {"Range": f"bytes={done}-"} if done else {}
            answer = self.request(
                "GET", url, headers=headers, stream=True, what=what, expected=(200, 206)
            )
            if done and answer.status == 200:
                answer.close()
                raise self._no_ranges()
            began = done
            try:
                with self._failures():
                    for piece in answer.stream(PIECE):
                        done += len(piece)
                        yield piece
                return
            except SourceError:
                again = _AGAIN if done - began >= PIECE else again - 1
                if again < 0:
                    raise
            finally:
                answer.close()


def _words(error: object) -> str:
    """Why a request came to nothing, without the objects that the library puts into its texts."""
    cause = getattr(error, "__cause__", None) or getattr(error, "__context__", None)
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "it does not answer in time"
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return "it breaks an answer off, or gives none that is HTTP"
    return str(error).rpartition("object at 0x")[2].rpartition(">: ")[2] or type(error).__name__


class WebSource(Source):
    """The common part of sources that answer HTTP requests.

    Args:
        client: makes the requests.
        blobs: the URL of a blob, but for its digest.
    """

    def __init__(self, client: HttpClient, blobs: str) -> None:
        self.url = client.url
        self._client = client
        self._blobs = blobs

    def part(self, digest: str, offset: int, length: int) -> bytes:
        return self._client.part(f"{self._blobs}{digest}", offset, length)

    def blob(self, digest: str) -> AbstractContextManager[Iterator[bytes]]:
        return closing(self._client.pieces(f"{self._blobs}{digest}", f"blob {digest}"))


class Http(WebSource):
    """The source `http(s)://…`: a template store behind a file server that serves ranges.

    Args:
        url: as it was given.
        patience: see `PATIENCE`.
    """

    def __init__(self, url: str, patience: float = PATIENCE) -> None:
        self._base = url.rstrip("/")
        super().__init__(HttpClient(url, urlsplit(url).netloc, patience), f"{self._base}/blobs/")

    def find(self, name: str) -> Version | None:
        data = self._client.find(f"{self._base}/names/{name}", name)
        return None if data is None else read_name(self.url, name, data)

    def check(self) -> None:
        what = "it serves no template store"
        self._client.request("GET", f"{self._base}/format", what=what, expected=(200,))


def _credentials(host: str) -> str | None:
    """The credentials for a registry, from the files of docker(1), podman(1) and oras(1).

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
