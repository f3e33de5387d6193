"""Which process of a cluster this is, by TF_CONFIG; no TensorFlow."""

import json
import os
import re
from dataclasses import dataclass

from tokenmill.errors import TokenmillError


@dataclass(frozen=True)
class Peer:
    """Another process of the cluster.

    Attributes:
        index: Its index among all; the chief's is 0.
        kind: Its kind in TF_CONFIG.
        number: Its number among those of this kind.
        address: Its host and port.
    """

    index: int
    kind: str
    number: int
    address: str

    @property
    def task(self) -> str:
        """Return what TensorFlow calls it."""
        return f"/job:{self.kind}/replica:0/task:{self.number}"


def other_peers() -> list[Peer]:
    """Return the other processes, by their index.

    Raises:
        TokenmillError: TF_CONFIG is missing or wrong.
    """
    cluster, own_kind, own_number = _read_cluster()
    tasks = [
        (kind, number, address)
        for kind in ("chief", "worker")
        for number, address in enumerate(cluster.get(kind, ()))
    ]
    return [
        Peer(index, *task) for index, task in enumerate(tasks) if task[:2] != (own_kind, own_number)
    ]


def find_peers(text: str) -> list[Peer]:
    """Return the other processes that a message of TensorFlow's names."""
    named = re.findall(r"/job:(\w+)/(?:replica:0/)?task:(\d+)", text)
    return [peer for peer in other_peers() if (peer.kind, str(peer.number)) in named]


def name_peers(peers: list[Peer]) -> str:
    """Return the processes as a sentence names them, with their addresses."""
    _, count = place_in_cluster()
    return ", ".join(f"worker {peer.index} of {count} ({peer.address})" for peer in peers)


def late_hint() -> str:
    """Return what to do when not all have connected.

    Raises:
        TokenmillError: TF_CONFIG is missing or wrong.
    """
    others = name_peers(other_peers())
    return f"Check that this machine and {others} reach each other; start all workers again."


def place_in_cluster() -> tuple[int, int]:
    """Return (this process's index, the number of processes); the chief has index 0.

    Raises:
        TokenmillError: TF_CONFIG, which tells a worker of the others, is missing or wrong.
    """
    cluster, kind, index = _read_cluster()
    chiefs = len(cluster.get("chief", ()))
    return index + (chiefs if kind == "worker" else 0), chiefs + len(cluster["worker"])


def cluster_size() -> tuple[int, int]:
    """Return the number of processes and of the machines that they are on, by their hosts' names.

    Raises:
        TokenmillError: TF_CONFIG is missing or wrong.
    """
    cluster, _, _ = _read_cluster()
    addresses = [*cluster.get("chief", ()), *cluster["worker"]]
    return len(addresses), len({address.rpartition(":")[0] for address in addresses})


def _read_cluster() -> tuple[dict[str, list[str]], str, int]:
    """Return the addresses by kind, and this process's kind and number among it."""
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        kind, index = task["type"], int(task["index"])
        cluster[kind][index], cluster["worker"][0]
    except (ValueError, KeyError, IndexError, TypeError):
        raise TokenmillError(
            f'train.strategy = "multi_worker" needs TF_CONFIG in the environment, found {text!r}.',
            'Expected {"cluster": {"worker": ["host:port", ..]}, "task": {"type": "worker", '
            '"index": 0}}, the index another on each worker.',
        ) from None
    return cluster, kind, index


def check_is_chief(training_directory: str) -> None:
    """Check that this process may run the pipeline for the others, before its first step.

    Raises:
        TokenmillError: TF_CONFIG is missing or wrong, or makes this process another worker.
    """
    index, count = place_in_cluster()
    if index:
        raise TokenmillError(
            f"TF_CONFIG makes this process worker {index} of {count}; tokenmill run is for the "
            "chief, whose index is 0.",
            f"Start here: python -m components.train.distributed.worker {training_directory}",
        )
