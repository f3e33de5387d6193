"""One way to run a function in a process of its own.

The new process reads its job from standard input and reports what happens on another pipe, a JSON
object a line, so that no library's output comes between. If it dies, the pipeline gets an error and
lives on; if the parent dies, the kernel kills it.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tokenmill import progress
from tokenmill.errors import TokenmillError
from tokenmill.generated_code import remove_generated_bytecode
from tokenmill.library_logs import set_up_library_logging
from tokenmill.preemption import StoppedError, handled_signals

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_in_subprocess(
    function: Callable[..., dict[str, Any]] | str,
    name: str,
    killed_hint: str,
    ended_hint: str = "",
    late_hint: str = "Start all workers again; the log says how far each came.",
    **arguments: Any,
) -> Any:
    """Run `function(start_seconds=.., **arguments)` in a new process and return its result.

    The first signal is passed on, the second kills the process; progress and messages come through.

    Args:
        function: At the top of a module, or "<module>.<name>" where this process shall not import
            it. It gets the seconds that the process took to start.
        name: What the process is called in messages, such as "the training process".
        killed_hint: What to do when the process was killed, such as by the kernel for memory.
        ended_hint: What to do when native code ended the process with an exit code.
        late_hint: What to do when it waited too long for other workers.
        **arguments: JSON, as is the result.

    Raises:
        StoppedError: A signal came, or a worker was lost.
        TokenmillError: What the function raises, or the process was killed.
        KeyboardInterrupt: Ctrl-C, where the function does not handle it.
    """
    if callable(function):
        function = f"{function.__module__}.{function.__name__}"
    _give_memory_back()
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "tokenmill.run_in_subprocess", str(writer), str(os.getpid())],
        stdin=subprocess.PIPE,
        text=True,
        pass_fds=[writer],
        start_new_session=True,  # Ctrl-C comes once: passed on from here
    )
    os.close(writer)
    assert process.stdin is not None
    ended: dict[str, Any] = {}
    with _passing_on_signals(process) as signals, open(reader, encoding="utf-8") as lines:
        with contextlib.suppress(BrokenPipeError), process.stdin:
            job = {
                "function": function,
                "started_at": time.monotonic(),  # one clock for all processes
                "arguments": arguments,
            }
            process.stdin.write(json.dumps(job) + "\n")
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
        raise StoppedError(ended["message"], ended["hint"], ended["exit_code"])
    if "message" in ended:
        raise TokenmillError(ended["message"], ended["hint"])
    if code == -signal.SIGKILL and signals:  # by the second of them
        code = -signals[0]
    if code == -signal.SIGINT:  # what Python ends with after a KeyboardInterrupt
        raise KeyboardInterrupt
    if code == -signal.SIGTERM:
        raise StoppedError(
            f"{name} was ended by SIGTERM.", "The same command continues from there."
        )
    if code == -signal.SIGALRM:  # tokenmill/preemption.py, killable
        raise StoppedError(
            f"{name} waited too long for the others to join, and was ended.",
            late_hint,
        )
    if code < 0:  # no exit code that has a scheduler try again: it would run out of memory again
        raise TokenmillError(f"{name} was killed by {signal.Signals(-code).name}.", killed_hint)
    raise TokenmillError(f"{name} ended with exit code {code}; the log has more.", ended_hint)


def _give_memory_back() -> None:
    """Return what was freed to the system: the new process has the longest and largest step.

    glibc keeps it otherwise, some 230 MiB after the demo's data steps. The rest of the pipeline's
    process, 1.1 GiB, is libraries (0.5 GiB of them files that the new process shares).
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)


@contextlib.contextmanager
def _passing_on_signals(process: subprocess.Popen) -> Iterator[list[signal.Signals]]:
    """Pass signals on to the process and list them; kill its group if it outlives the body."""
    got: list[signal.Signals] = []
    before: dict[signal.Signals, Any] = {}

    def pass_on(number: int, frame: Any) -> None:
        got.append(signal.Signals(number))
        if len(got) == 1:
            process.send_signal(number)
        else:
            _kill_group(process)

    for each in handled_signals():
        before[each] = signal.signal(each, pass_on)
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process.poll() is None:  # an error here, not there
            _kill_group(process)
            process.wait()


def _kill_group(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; a thread could be held up in C."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def main() -> None:
    """Do the job on standard input, in the new process; report on the pipe of argv[1]."""
    _die_with(int(sys.argv[2]))
    # A background job starts with SIGINT ignored; here it comes from the parent, and is meant.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    job = json.loads(sys.stdin.readline())
    set_up_library_logging()
    remove_generated_bytecode()
    module, _, name = job["function"].rpartition(".")
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
        except StoppedError as error:
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
