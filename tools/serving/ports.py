"""A free place to listen, and sentences where there is none."""

import errno
import socket

from eomt_mm.errors import UserError

TRIES = 20


def listen(host: str, port: int) -> tuple[socket.socket, list[int]]:
    """Bind the wanted port, or the next free one.

    Args:
        host (str): A name or an address of this machine.
        port (int): The first to try; 0 takes any.

    Returns:
        tuple[socket.socket, list[int]]: The bound socket, and the ports that were in
        use.

    Raises:
        UserError: There is no such host here, or all ports tried are in use.
    """
    taken = []
    for number in range(port, min(port + TRIES, 65536)):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
        except OSError as error:
            raise UserError(
                f'--host {host}: there is no such name ({error.strerror}); leave it '
                'out for this machine alone'
            ) from error
        server = socket.socket(family, kind, protocol)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(address)
            server.listen(128)
        except OSError as error:
            server.close()
            if error.errno == errno.EADDRINUSE:
                taken.append(number)
                continue
            raise UserError(
                f'--host {host} --port {number}: cannot listen there '
                f'({error.strerror}); give another --port, or leave --host out'
            ) from error
        return server, taken
    raise UserError(
        f'the ports {port} to {port + len(taken) - 1} are in use: give another --port'
    )
