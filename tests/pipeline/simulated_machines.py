"""Machines simulated by namespaces: addresses, names, uptimes, processes and /tmp of their own.

What they share is one directory, at the same path, and software that they can only read. A bridge
is their switch; their links can be cut. They also share this machine's kernel, cores and time of
day. Everything goes with its processes: this machine's own network and mounts stay as they are.
"""

import functools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

# Below which the shared file system is mounted, on every machine.
MOUNT = pathlib.Path("/srv/shared")
_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--time")
# As the first process of a machine: $1 its name, $2 the shared directory, $3 its /etc/hosts.
_BOOT = f"""
set -e
hostname "$1"
mount --bind "$3" /etc/hosts
mount -t tmpfs tmpfs {MOUNT.parent}
mkdir {MOUNT}
mount --bind "$2" {MOUNT}
for directory in /dev/shm /var/tmp /tmp; do mount -t tmpfs -o mode=1777 tmpfs "$directory"; done
mkdir /tmp/home
mount -o remount,bind,ro /
ip link set lo up
echo up
exec sleep infinity
"""


@functools.cache
def why_not() -> str:
    """Return why no machines can be simulated here; empty if they can."""
    for tool in ("ip", "nsenter", "setpriv", "unshare"):
        if shutil.which(tool) is None:
            return f"{tool} is missing (apt-get install iproute2 util-linux)"
    for path in (sys.prefix, os.getcwd(), sys.base_prefix):
        if pathlib.Path(path).resolve().is_relative_to("/tmp"):
            return f"{path} is below /tmp, which each machine has for itself"
    try:
        with tempfile.TemporaryDirectory() as shared, Network(pathlib.Path(shared)) as network:
            network.add_machine("probe")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"namespaces are not permitted: {getattr(error, 'stderr', '') or error}"
    return ""


class Machine:
    """One machine at a switch.

    Args:
        name: Its host name.
        number: Among the machines, from 1 on.
        shared: The directory that it finds at `MOUNT`.
        hosts: Its /etc/hosts.

    Attributes:
        address: Its IP address.
    """

    def __init__(self, name: str, number: int, shared: pathlib.Path, hosts: pathlib.Path):
        self.address = f"10.77.0.{number}"
        # An uptime of its own, in days.
        clock = ("--monotonic", str(number * 86_400), "--boottime", str(number * 86_400))
        self._first = _hold(
            ("--pid", "--mount-proc", "--kill-child", *clock, *_NAMESPACES),
            ("sh", "-c", _BOOT, "sh", name, str(shared), str(hosts)),
        )

    def _enter(self) -> tuple[str, ...]:
        pid = self._first.pid
        kinds = ("pid", "time")  # those that only children of the first process are in
        others = [f"--{kind}=/proc/{pid}/ns/{kind}_for_children" for kind in kinds]
        return ("nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", *others)

    def start(
        self,
        words: list[str],
        log: pathlib.Path,
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen:
        """Start a command; its output goes to a file."""
        with log.open("w", encoding="utf-8") as out:
            return subprocess.Popen(
                [*self._enter(), *words],
                env={**os.environ, "HOME": "/tmp/home", "TMPDIR": "/tmp", **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def run(self, *words: str, environment: dict[str, str] | None = None) -> str:
        """Run a command to its end; return what it printed.

        Raises:
            subprocess.CalledProcessError: It failed.
        """
        return subprocess.run(
            [*self._enter(), *words], check=True, capture_output=True, text=True,
            env={**os.environ, "HOME": "/tmp/home", "TMPDIR": "/tmp", **(environment or {})},
        ).stdout  # fmt: skip

    @property
    def pid(self) -> int:
        """Return the process whose namespaces are this machine's."""
        return self._first.pid

    def power_off(self) -> None:
        """End all its processes at once, without a word to the others: its link goes with it."""
        _release(self._first)


class Network:
    """A switch, and machines at it: a context manager, at whose end all are powered off.

    Args:
        shared: The directory that all machines see at `MOUNT`.
    """

    def __init__(self, shared: pathlib.Path):
        self._shared = shared
        self._machines: list[Machine] = []

    def __enter__(self) -> "Network":
        self._files = pathlib.Path(tempfile.mkdtemp())
        self._hosts = self._files / "hosts"
        self._hosts.write_text("127.0.0.1 localhost\n")
        self._switch = _hold(("--net",), ("sh", "-c", "echo up; exec sleep infinity"))
        self._ip("link", "add", "switch", "type", "bridge")
        self._ip("link", "set", "switch", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self._machines:
            machine.power_off()
        _release(self._switch)
        shutil.rmtree(self._files)

    def add_machine(self, name: str) -> Machine:
        """Add a machine, which the others find by its name."""
        number = len(self._machines) + 1
        machine = Machine(name, number, self._shared, self._hosts)
        self._machines.append(machine)
        with self._hosts.open("a") as hosts:
            hosts.write(f"{machine.address} {name}\n")
        peer = ("peer", "name", "eth0", "netns", str(machine.pid))
        self._ip("link", "add", name, "type", "veth", *peer)
        self._ip("link", "set", name, "master", "switch", "up")
        machine.run("ip", "address", "add", f"{machine.address}/24", "dev", "eth0")
        machine.run("ip", "link", "set", "eth0", "up")
        return machine

    def cut(self, name: str, carrier: bool = False) -> None:
        """Cut a machine's link, at the switch.

        Args:
            name: Of the machine.
            carrier: Whether the machine still sees a link, whose packets get lost further away.
        """
        self._ip("link", "set", name, *(["nomaster"] if carrier else ["down"]))

    def mend(self, name: str) -> None:
        """Mend a machine's link."""
        self._ip("link", "set", name, "master", "switch", "up")

    def _ip(self, *words: str) -> None:
        command = ["nsenter", f"--target={self._switch.pid}", "--net", "ip", *words]
        subprocess.run(command, check=True, capture_output=True, text=True)


def _hold(namespaces: tuple[str, ...], words: tuple[str, ...]) -> subprocess.Popen:
    """Start a first process in new namespaces; return when it says that all is up.

    Raises:
        subprocess.CalledProcessError: It did not.
    """
    process = subprocess.Popen(
        # The kernel ends it, and all that is in it, when this process is killed.
        ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    if process.stdout.readline() != "up\n":
        process.kill()
        _, said = process.communicate()
        raise subprocess.CalledProcessError(process.wait(), "unshare", stderr=said)
    return process


def _release(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()
