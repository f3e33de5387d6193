"""Whether the other processes of a training live, and which of them was lost.

A link that is cut for half a minute must not end a training: TCP sends again what was lost. So
TensorFlow's heartbeats may be missing for `SILENT_SECONDS`, which is long where a process has died
while its machine lives on. Such a one has closed its port, and is missed in seconds by asking it.
"""

import contextlib
import functools
import logging
import threading
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.python.eager import context

from components.train.distributed.cluster import Peer, find_peers, name_peers, other_peers

# A process that is not heard of for as long is lost; a heartbeat itself may take half of it. What
# TCP lost in a cut of 30 s may be sent again 60 s after the cut began, as its waits double.
# TensorFlow's own 10 s end the training before.
SILENT_SECONDS = 150
# How often the others are asked, and how often in a row one may be gone: its port is closed.
_ASK_SECONDS, _MOST_GONE = 3.0, 3
# TensorFlow's classes for a loss, and for much else.
_UNCLEAR = (tf.errors.InternalError, tf.errors.UnknownError, tf.errors.FailedPreconditionError)


@contextlib.contextmanager
def patient_heartbeats() -> Iterator[None]:
    """Within the body, a strategy of several workers is made with `SILENT_SECONDS`.

    The strategy sets its heartbeats up by a method of TensorFlow's context, and has no argument
    for them.
    """
    eager = context.context()
    configure = eager.configure_coordination_service
    eager.configure_coordination_service = functools.partial(
        configure, heartbeat_timeout_in_ms=1000 * SILENT_SECONDS
    )
    try:
        yield
    finally:
        eager.configure_coordination_service = configure


@contextlib.contextmanager
def missed_peers(count: int) -> Iterator[None]:
    """Within the body, end what waits for the others when the process of one of them has ended.

    All ask all others: who asked the chief only would hear of its end, which follows the other's.

    Args:
        count: The number of processes; one alone has nobody to miss.
    """
    if count == 1:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_ask, args=(other_peers(), ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(2 * _ASK_SECONDS)  # TensorFlow must not end in the middle of a question


def _ask(peers: list[Peer], ended: threading.Event) -> None:
    """Ask each again and again; abort this process's collectives when one has gone."""
    gone = dict.fromkeys(peers, 0)
    eager = context.context()
    while not ended.wait(_ASK_SECONDS):
        for peer in peers:
            if ended.is_set():
                return
            try:
                eager.check_collective_ops_peer_health(
                    peer.task, timeout_in_ms=round(1000 * _ASK_SECONDS)
                )
            except (tf.errors.UnavailableError, tf.errors.FailedPreconditionError) as error:
                gone[peer] += 1
                if gone[peer] >= _MOST_GONE and not ended.is_set():
                    logging.warning("%s has gone: %s", peer.task, error)
                    said = f"the process at {peer.task} has ended"
                    eager.abort_collective_ops(tf.errors.UNAVAILABLE, said)
                    return
            except tf.errors.OpError:  # no answer in time: a link is cut, or its cores are busy
                continue
            else:
                gone[peer] = 0


def describe_loss(error: Exception) -> str:
    """Return a sentence that says which of the others was lost, and why, by TensorFlow's error."""
    text = str(error)
    named = find_peers(text)
    who = name_peers(named or other_peers())
    if not named and len(other_peers()) > 1:
        who = f"one of {who}"
    if "heartbeat timeout" in text or ("Heartbeat" in text and "Deadline Exceeded" in text):
        return f"{who} was lost: no answer for {SILENT_SECONDS // 2} to {SILENT_SECONDS} s."
    if " has ended" in text:
        return f"{who} was lost: its process has ended."
    if not named and isinstance(error, _UNCLEAR):
        return f"a step failed, perhaps since {who} was lost: {_cause(text)}."
    return f"{who} was lost: {_cause(text)}."


def _cause(text: str) -> str:
    """Return the line that says what happened, without where in the graph it was noticed."""
    _, _, aborted = text.partition("aborted by: ")
    places = ("Graph execution error", "Detected at node", "  File")
    lines = [line for line in (aborted or text).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(places)]
    return (said or lines or ["no reason is given"])[0].strip().rstrip(".")
