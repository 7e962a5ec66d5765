"""A link to a server on this machine that can become slow, or stall."""

from __future__ import annotations

import socket
import threading
import time


class Proxy:
    """Passes bytes on, to and fro.

    Args:
        port: of the server, on the loopback.

    Attributes:
        port: where it is reached.
        pause: seconds after each byte that the server sends; 0 for none.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self.pause = 0.0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server))
            self._sockets += (client, server)
            for ends in ((client, server, False), (server, client, True)):
                self._threads.append(threading.Thread(target=self._pass_on, args=ends))
                self._threads[-1].start()

    def _pass_on(self, source: socket.socket, to: socket.socket, slow: bool) -> None:
        try:
            while data := source.recv(65536):
                at = 0
                while at < len(data):
                    end = at + 1 if slow and self.pause else len(data)
                    to.sendall(data[at:end])
                    at = end
                    if slow:
                        time.sleep(self.pause)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        """End it, and all connections."""
        self.pause = 0.0
        for each in (self._listening, *self._sockets):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
        for thread in self._threads:
            thread.join()
