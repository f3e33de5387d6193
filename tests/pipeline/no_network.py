"""Runs a program without a network but this machine's own: `python no_network.py PROGRAM ..`

In a network namespace of its own, which `unshare` makes (Linux, as root); its loopback is down at
first.
"""

import fcntl
import functools
import os
import socket
import struct
import subprocess
import sys

SIOCSIFFLAGS, IFF_UP = 0x8914, 1


@functools.cache
def why_not() -> str:
    """Return why no network namespace can be made here; empty if one can."""
    try:
        made = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return made.stderr.strip()


def without_network(*command: str) -> list[str]:
    """Return the words that run a command without a network."""
    return ["unshare", "--net", sys.executable, os.path.abspath(__file__), *command]


if __name__ == "__main__":
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
    os.execvp(sys.argv[1], sys.argv[1:])
