"""Runs on the head, given to its Python as text: standard library only, for any Python 3.

    far.py PATH     passes bytes between stdin and stdout and the unix socket at PATH

It carries the API where sshd forwards no sockets, and tells why a socket cannot be used, for sshd does
not say. `READY` on stdout begins the bytes of the socket: a shell's own words may come before it. Where
the socket cannot be used, `FAILED` and the name of the error stand there instead.
"""

import errno
import os
import socket
import sys
import threading

READY = b"\n<quarterdeck:ready>\n"
FAILED = b"\n<quarterdeck:failed> "
_PIECE = 1 << 18


def main(path: str) -> None:
    """Connect, and pass bytes until either side has ended."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder, _, name = path.rpartition("/")
    try:
        os.chdir(folder or "/")  # the path may be longer than what a socket's address holds
        held.connect(name)
    except OSError as error:
        write(FAILED + errno.errorcode.get(error.errno or 0, "EIO").encode() + b"\n")
        return
    write(READY)
    threading.Thread(target=send, args=(held,), daemon=True).start()
    while True:
        data = held.recv(_PIECE)
        if not data:
            return
        write(data)


def send(held: socket.socket) -> None:
    """From stdin to the socket. When stdin ends the caller is gone, and so is this process."""
    try:
        while True:
            data = os.read(0, _PIECE)
            if not data:
                break
            held.sendall(data)
    finally:
        os._exit(0)


def write(data: bytes) -> None:
    """All of it: a pipe may take less than it is given."""
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    main(sys.argv[1])
