"""Running the annotator: its address and the server."""

import ipaddress
import signal
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from popmargin.errors import ConfigError

_TRIES = 20
_PORTS = 65536
_GRACE_SECONDS = 5  # docker kills after ten


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
    )
    return uvicorn.Server(config)


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve until interrupted; SIGTERM, as systemd and docker send it, ends the program after its stores are closed."""
    with _exit_at_sigterm():
        server_of(app).run(sockets=[listening])


@contextmanager
def _exit_at_sigterm() -> Generator[None]:
    """uvicorn raises the signal again when it has stopped; by default that ends the program on the spot."""

    def leave(_: int, __: FrameType | None) -> None:
        sys.exit(0)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
