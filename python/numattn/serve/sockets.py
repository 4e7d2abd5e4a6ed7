"""The sockets at which a service listens."""

from __future__ import annotations

import socket
import sys
from typing import Any

BACKLOG = 2048


def listening(host: str, port: int, count: int) -> list[socket.socket]:
    """Return listening sockets of one address, for that many processes.

    Where the system deals connections out among sockets of one address (Linux), each process has
    one; elsewhere all share one. Whoever made them keeps them: a connection that no process has
    taken when its process dies waits for the next.

    Parameters
    ----------
    host : str
        A name or an address, IPv6 too.
    port : int
        0 for any that is free.
    count : int
        1 or more.

    Raises
    ------
    OSError
        The address is taken, or none of this machine's.
    """
    dealt = count > 1 and sys.platform == "linux"
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, address = found[0][0], found[0][4]
    if dealt:
        # Of several sockets each lets others in, another service's too: one that does not sees
        # whether there are any, and finds a port if it was 0.
        with bound(family, address, alone=True) as first:
            address = first.getsockname()
    sockets: list[socket.socket] = []
    try:
        for _ in range(count if dealt else 1):
            sockets.append(bound(family, address, alone=not dealt))
            sockets[-1].listen(BACKLOG)
    except OSError:
        for made in sockets:
            made.close()
        raise
    return sockets if dealt else sockets * count


def bound(family: int, address: Any, alone: bool) -> socket.socket:
    """Return a socket at an address, which others may have too unless it is to be alone."""
    # Told that it is TCP, asyncio sends each answer at once: otherwise the system would hold a
    # body back for 40 ms, until its head is acknowledged.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not alone:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def address_of(made: socket.socket) -> str:
    """Return the address of a socket as a URL."""
    host, port = made.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
