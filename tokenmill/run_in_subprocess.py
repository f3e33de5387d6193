"""One way to run a function in a process of its own.

The new process reads its job from standard input, which stays open: when it closes, the parent has
ended, and the new process ends too. It reports what happens on another pipe, a JSON object a line,
so that no library's output comes between. If it dies, the pipeline gets an error, and lives on.
"""

import contextlib
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tokenmill import progress
from tokenmill.errors import TokenmillError
from tokenmill.library_logs import set_up_library_logging
from tokenmill.preemption import TrainingStoppedError


def run_in_subprocess(
    function: Callable[..., dict[str, Any]],
    name: str,
    killed_hint: str,
    ended_hint: str = "",
    **arguments: Any,
) -> Any:
    """Run `function(start_seconds=.., **arguments)` in a new process and return its result.

    Signals are passed on; progress and messages come through.

    Args:
        function: At the top of a module. It gets the seconds that the process took to start.
        name: What the process is called in messages, such as "the training process".
        killed_hint: What to do when the process was killed, such as by the kernel for memory.
        ended_hint: What to do when native code ended the process with an exit code.
        **arguments: JSON, as is the result.

    Raises:
        TrainingStoppedError: A signal came, or a worker was lost.
        TokenmillError: What the function raises, or the process was killed.
        KeyboardInterrupt: Ctrl-C, where the function does not handle it.
    """
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "tokenmill.run_in_subprocess", str(writer)],
        stdin=subprocess.PIPE,
        text=True,
        pass_fds=[writer],
        start_new_session=True,  # Ctrl-C comes once: passed on from here
    )
    os.close(writer)
    assert process.stdin is not None
    ended: dict[str, Any] = {}
    with _passing_on_signals(process), process.stdin, open(reader, encoding="utf-8") as lines:
        with contextlib.suppress(BrokenPipeError):
            job = {
                "function": [function.__module__, function.__name__],
                "started_at": time.monotonic(),  # one clock for all processes
                "arguments": arguments,
            }
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
        for line in lines:
            event = json.loads(line)
            if "report" in event:
                progress.report(*event["report"])
            elif "say" in event:
                progress.say(event["say"])
            else:
                ended = event
        code = process.wait()
    if "result" in ended:
        return ended["result"]
    if "exit_code" in ended:
        raise TrainingStoppedError(ended["message"], ended["hint"], ended["exit_code"])
    if "message" in ended:
        raise TokenmillError(ended["message"], ended["hint"])
    if code == -signal.SIGINT:  # what Python ends with after a KeyboardInterrupt
        raise KeyboardInterrupt
    if code == -signal.SIGTERM:
        raise TrainingStoppedError(
            f"{name} was ended by SIGTERM.", "The same command continues from there."
        )
    if code < 0:  # no exit code that has a scheduler try again: it would run out of memory again
        raise TokenmillError(f"{name} was killed by {signal.Signals(-code).name}.", killed_hint)
    raise TokenmillError(f"{name} ended with exit code {code}; the log has more.", ended_hint)


@contextlib.contextmanager
def _passing_on_signals(process: subprocess.Popen) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {
        number: signal.signal(number, lambda got, frame: process.send_signal(got))
        for number in numbers
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_with_parent() -> None:
    # Not sys.stdin: a thread that waits in it would hold its lock when the interpreter ends.
    while os.read(0, 1024):
        pass
    os._exit(1)


def main() -> None:
    """Do the job on standard input, in the new process; report on the pipe of argv[1]."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    set_up_library_logging()
    module, name = job["function"]
    function = getattr(importlib.import_module(module), name)
    with open(int(sys.argv[1]), "w", encoding="utf-8") as out:

        def send(**event: Any) -> None:
            out.write(json.dumps(event) + "\n")
            out.flush()

        progress.set_listener(
            lambda *report: send(report=report), lambda message: send(say=message)
        )
        start_seconds = time.monotonic() - job["started_at"]
        try:
            result = function(start_seconds=start_seconds, **job["arguments"])
        except TrainingStoppedError as error:
            send(message=error.message, hint=error.hint, exit_code=error.exit_code)
        except TokenmillError as error:
            send(message=error.message, hint=error.hint)
        except Exception as error:
            logging.exception("%s failed", name)
            send(message=f"{type(error).__name__}: {error}", hint="The log has the stack trace.")
        else:
            send(result=result)


if __name__ == "__main__":
    main()
