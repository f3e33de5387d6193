"""Which process of a cluster this is, by TF_CONFIG; no TensorFlow."""

import json
import os

from tokenmill.errors import TokenmillError


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
