"""How far a long step is, told to whoever runs the pipeline.

A step calls `report`, `read` and `say`; the runner that shows a screen sets listeners. Without them
(in a container of Kubeflow, in a test) nothing happens: the step's own log lines remain.
"""

from collections.abc import Callable

Listener = Callable[[float, float, str], None]
Speaker = Callable[[str], None]
Reader = Callable[[int, int], None]

_listener: Listener | None = None
_speaker: Speaker | None = None
_reader: Reader | None = None


def set_listener(
    listener: Listener | None, speaker: Speaker | None = None, reader: Reader | None = None
) -> None:
    """Sets (or with None removes) the functions that are told of events in this process.

    Args:
        listener: Told of progress: units done, units in all, a few words.
        speaker: Told of what a person has to see, in a sentence.
        reader: Told of what was read: documents and their bytes.
    """
    global _listener, _speaker, _reader
    _listener, _speaker, _reader = listener, speaker, reader


def report(done: float, total: float, detail: str = "") -> None:
    """Tells that `done` of `total` units of the running step are finished.

    Args:
        done: Units finished, from 0 to `total`.
        total: Units in all.
        detail: A few words on the state, such as the loss and tokens per second.
    """
    if _listener is not None:
        _listener(done, total, detail)


def read(documents: int, size_bytes: int) -> None:
    """Tells that the running step has read some more documents.

    Args:
        documents: Since the last call.
        size_bytes: Their bytes.
    """
    if _reader is not None:
        _reader(documents, size_bytes)


def say(message: str) -> None:
    """Tells what a person has to see whatever else is on the screen.

    Args:
        message: A sentence.
    """
    if _speaker is not None:
        _speaker(message)
