"""How the other workers learn what the chief trains: rendezvous.json in the training directory.

A chief that was killed leaves its file behind, so that a file alone says nothing. The chief writes
it anew every few seconds while it trains, and a worker believes only a file that it saw change or
appear: no clocks are compared.
"""

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator

import tensorflow as tf

from components.train.config import TrainingJob
from tokenmill.contracts.base import Document, key, read_document, write_document
from tokenmill.errors import TokenmillError

RENDEZVOUS_NAME = "rendezvous.json"
BEAT_SECONDS = 2.0  # an object store takes about one write a second of the same object


class Rendezvous(Document):
    """rendezvous.json: what the chief trains."""

    job: TrainingJob = key("What to train.")
    rows_uri: str = key("A PackedRows artifact.")
    tokenizer_path: str = key("The SentencePiece model.")
    attempt: str = key("Of the chief, another one each time it starts.", default="")
    beat: int = key("How often the chief has written this file.", default=0)


@contextlib.contextmanager
def hold_rendezvous(
    training_directory: str, rendezvous: Rendezvous, beat_seconds: float = BEAT_SECONDS
) -> Iterator[None]:
    """Write `rendezvous` again and again while the body runs, and remove it at the end.

    Args:
        training_directory: On a file system that all workers share.
        rendezvous: What is trained.
        beat_seconds: How often it is written anew.
    """
    path = os.path.join(training_directory, RENDEZVOUS_NAME)
    attempt, ended = uuid.uuid4().hex, threading.Event()

    def beat(number: int) -> None:
        write_document(path, rendezvous.model_copy(update={"attempt": attempt, "beat": number}))

    def keep_beating() -> None:
        number = 0
        while not ended.wait(beat_seconds):
            number += 1
            try:
                beat(number)
            except (OSError, tf.errors.OpError):  # the next one may get through
                logging.warning("cannot write %s", path, exc_info=True)

    beat(0)
    thread = threading.Thread(target=keep_beating, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.remove(path)


def wait_for_chief(
    training_directory: str, wait_seconds: float, poll_seconds: float = 1.0
) -> Rendezvous:
    """Return what a chief that is alive has written.

    Args:
        training_directory: The chief's.
        wait_seconds: How long to wait for the chief.
        poll_seconds: How often to look.

    Raises:
        TokenmillError: No chief came.
    """
    path = os.path.join(training_directory, RENDEZVOUS_NAME)
    deadline = time.monotonic() + wait_seconds
    before = _read(path)
    while True:
        time.sleep(poll_seconds)
        now = _read(path)
        if now is not None and now != before:
            return now
        if now is None:
            before = None
        if time.monotonic() > deadline:
            left = "" if now is None else " that changes: the one there is of a chief that is gone"
            raise TokenmillError(
                f"no {path}{left}, after {wait_seconds:,.0f} s.", "Start the chief: tokenmill run."
            )


def _read(path: str) -> Rendezvous | None:
    try:
        return read_document(path, Rendezvous) if tf.io.gfile.exists(path) else None
    except tf.errors.NotFoundError:  # removed in between
        return None
