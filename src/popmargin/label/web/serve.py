"""Running the annotator: its address and the server."""

import asyncio
import ipaddress
import signal
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from popmargin.errors import ConfigError

_TRIES = 20
_PORTS = 65536
REQUEST_SECONDS = 30.0
"""Within which a client has to send a whole request."""
_GRACE_SECONDS = 5  # docker kills after ten


class _Patient(H11Protocol):
    """HTTP that ends a connection whose request is not whole after `REQUEST_SECONDS`; uvicorn waits for ever."""

    _deadline: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._watch()

    def on_response_complete(self) -> None:
        """Begin to wait for the next one."""
        self._deadline.cancel()
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._deadline.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._end)

    def _end(self) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            self._watch()  # the server itself is busy
        elif not self.transport.is_closing():
            self.transport.close()


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach the address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A listening socket at the port, or at the next free one; port 0 takes any.

    Raises:
        ConfigError: the address does not belong to this machine, the port is invalid, or no port is free.
    """
    if not 0 <= port < _PORTS:
        raise ConfigError(f"--port {port}: use 1 to {_PORTS - 1}, or 0 for any free port.")
    last: OSError | None = None
    end = min(port + _TRIES, _PORTS) if port else 1
    for candidate in range(port, end):
        try:
            family = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((host, candidate), family=family, backlog=256)
        except OSError as error:
            last = error
    raise ConfigError(
        f"Cannot listen on {host}, ports {port} to {end - 1}: {last}. Choose another --host or --port."
    ) from last


def address(host: str, listening: socket.socket) -> str:
    """The site's address for links on this machine."""
    name = "127.0.0.1" if host in ("0.0.0.0", "") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{listening.getsockname()[1]}"


def server_of(app: FastAPI) -> uvicorn.Server:
    """The server; requests are not logged, since links contain tokens."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=_GRACE_SECONDS,
        http=_Patient,
    )
    return uvicorn.Server(config)


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve until interrupted."""
    server_of(app).run(sockets=[listening])


@contextmanager
def exit_at_sigterm() -> Generator[None]:
    """Let SIGTERM, as systemd and docker send it, end the program as if it had finished, so that its stores are closed.

    By default it ends on the spot; uvicorn too raises the signal again when it has stopped.
    """

    def leave(_: int, __: FrameType | None) -> None:
        sys.exit(0)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
