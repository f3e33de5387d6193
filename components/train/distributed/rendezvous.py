"""How the processes of a training find each other before tf.distribute connects them.

In the training directory, which all of them see:

    chief.json         the chief's sign of life, for the whole of its run (tokenmill/heartbeat.py)
    rendezvous.json    its call: what is trained; at last that all are there
    worker-<i>.json    the answer of the i-th worker to this call

TensorFlow's own way of waiting is a call into C that keeps Python's GIL, so that no signal is
handled and nothing can be said; it starts when all have answered, and takes seconds.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator

import tensorflow as tf

from components.train.config import TrainingJob
from components.train.distributed.cluster import place_in_cluster
from tokenmill import progress
from tokenmill.contracts.base import Document, key, read_document, write_document
from tokenmill.heartbeat import HeartbeatWatch, beat_heart
from tokenmill.preemption import StoppedError

CHIEF_NAME = "chief.json"
RENDEZVOUS_NAME = "rendezvous.json"

# For the others to start: a cluster may have to find machines first.
WAIT_SECONDS = 3600.0
# A network's file system may show a file as it was minutes ago.
SILENT_SECONDS = 180.0

# Attempts of the chiefs that live in this process, by training directory.
_living: dict[str, str] = {}


class Rendezvous(Document):
    """rendezvous.json: what the chief trains."""

    job: TrainingJob = key("What to train.")
    rows_uri: str = key("A PackedRows artifact.")
    tokenizer_path: str = key("The SentencePiece model.")
    attempt: str = key("Of the chief's sign of life.", default="")
    call: str = key("Another one each time the Trainer starts.", default="")
    complete: bool = key("Whether all workers have answered this call.", default=False)


class Answer(Document):
    """worker-<i>.json: a worker has heard a call."""

    call: str = key("Of rendezvous.json.")


@contextlib.contextmanager
def show_life(training_directory: str) -> Iterator[None]:
    """Let the others see, while the body runs, that the chief lives; at last how it ended.

    Within another one of the same process it does nothing.

    Args:
        training_directory: On a file system that all workers share.
    """
    if training_directory in _living:
        yield
        return
    with beat_heart(os.path.join(training_directory, CHIEF_NAME)) as attempt:
        _living[training_directory] = attempt
        try:
            yield
        finally:
            del _living[training_directory]


@contextlib.contextmanager
def call_workers(training_directory: str, rendezvous: Rendezvous) -> Iterator[None]:
    """Tell the others what is trained, while the body runs.

    Args:
        training_directory: On a file system that all workers share.
        rendezvous: What is trained.
    """
    with show_life(training_directory):
        told = {"attempt": _living[training_directory], "call": uuid.uuid4().hex}
        path = os.path.join(training_directory, RENDEZVOUS_NAME)
        write_document(path, rendezvous.model_copy(update=told))
        try:
            yield
        finally:
            pattern = os.path.join(training_directory, "worker-*.json")
            for file in (path, *tf.io.gfile.glob(pattern)):
                with contextlib.suppress(tf.errors.OpError):
                    tf.io.gfile.remove(file)


def wait_for_workers(
    training_directory: str, wait_seconds: float = WAIT_SECONDS, poll_seconds: float = 0.5
) -> None:
    """Return when all workers have answered the chief's call, and tell them so.

    Args:
        training_directory: With rendezvous.json.
        wait_seconds: How long to wait for them.
        poll_seconds: How often to look.

    Raises:
        StoppedError: Some did not come.
    """
    path = os.path.join(training_directory, RENDEZVOUS_NAME)
    rendezvous = read_document(path, Rendezvous)
    _, count = place_in_cluster()
    missing, said = list(range(1, count)), False
    deadline = time.monotonic() + wait_seconds
    while missing := [i for i in missing if not _answered(training_directory, i, rendezvous.call)]:
        names = f"worker{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))} of {count}"
        if time.monotonic() > deadline:
            raise StoppedError(
                f"{names} did not come within {wait_seconds:,.0f} s.",
                "Start all workers again: docs/training.md, Distribution.",
            )
        if not said:
            progress.say(f"waiting for {names}, {wait_seconds:,.0f} s at most")
            said = True
        time.sleep(poll_seconds)
    write_document(path, rendezvous.model_copy(update={"complete": True}))


def wait_for_chief(
    training_directory: str,
    index: int,
    wait_seconds: float = WAIT_SECONDS,
    silent_seconds: float = SILENT_SECONDS,
    poll_seconds: float = 0.5,
) -> Rendezvous | None:
    """Answer the call of a chief that lives; return it when all have answered.

    Args:
        training_directory: The chief's.
        index: Of this worker, from 1 on.
        wait_seconds: How long to wait for a chief's first sign of life; then as long as it lives.
        silent_seconds: How long one may say nothing before it is taken for dead.
        poll_seconds: How often to look.

    Returns:
        What is trained; None if the chief has ended well and needed no training.

    Raises:
        StoppedError: No chief came, it died, or it ended with an error; with its exit code.
    """
    watch = HeartbeatWatch(os.path.join(training_directory, CHIEF_NAME))
    started, answered = time.monotonic(), ""
    again = "Start all workers again; the chief is tokenmill run."
    while True:
        chief, call = watch.look(), _read(training_directory)
        if chief is None and time.monotonic() - started > wait_seconds:
            raise StoppedError(
                f"no chief has come within {wait_seconds:,.0f} s: {CHIEF_NAME} in "
                f"{training_directory} is missing, or of one that is gone.",
                again,
            )
        if chief is not None and chief.exit_code is not None:
            if chief.exit_code == 0:
                return None
            said = f"the chief ended with exit code {chief.exit_code}."
            raise StoppedError(said, again, chief.exit_code)
        if watch.silent_seconds > silent_seconds:
            raise StoppedError(f"the chief has been silent for {silent_seconds:,.0f} s.", again)
        if chief is not None and call is not None and call.attempt == chief.attempt:
            if call.call != answered:
                write_document(_answer_path(training_directory, index), Answer(call=call.call))
                answered = call.call
            if call.complete:
                return call
        time.sleep(poll_seconds)


def _answer_path(training_directory: str, index: int) -> str:
    return os.path.join(training_directory, f"worker-{index}.json")


def _answered(training_directory: str, index: int, call: str) -> bool:
    try:
        return read_document(_answer_path(training_directory, index), Answer).call == call
    except OSError:
        return False


def _read(training_directory: str) -> Rendezvous | None:
    try:
        return read_document(os.path.join(training_directory, RENDEZVOUS_NAME), Rendezvous)
    except OSError:
        return None
