"""How far a long step is, told to whoever runs the pipeline.

A step calls `report`; the runner that shows a screen sets a listener. Without one (in a container
of Kubeflow, in a test) nothing happens: the step's own log lines remain.
"""

from collections.abc import Callable

Listener = Callable[[float, float, str], None]

_listener: Listener | None = None


def set_listener(listener: Listener | None) -> None:
    """Sets (or with None removes) the function that is told of progress in this process."""
    global _listener
    _listener = listener


def report(done: float, total: float, detail: str = "") -> None:
    """Tells that `done` of `total` units of the running step are finished.

    Args:
        done: Units finished, from 0 to `total`.
        total: Units in all.
        detail: A few words on the state, such as the loss and tokens per second.
    """
    if _listener is not None:
        _listener(done, total, detail)
