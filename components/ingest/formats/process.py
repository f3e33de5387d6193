"""Processes that decode files which may be damaged or hostile: their death is an error of one file.

Both ends of the pipes are here: `ask` for the reader of a file; run as a script, with the path of
a module as its argument, this is the process. It reads a request a line (JSON) from standard input
and lets the module's `answer(request, send)` answer it by frames of an 8-byte length, a kind and
data; the kind D (done) or E (an error) is the last.
"""

import contextlib
import importlib.util
import json
import os
import resource
import signal
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

_FRAME = struct.Struct("<Qc")
_MAX_MEMORY_BYTES = 3 << 30


class ProcessDied(Exception):
    """The process ended before it had answered; the message says how."""


class _Process(NamedTuple):
    popen: "subprocess.Popen[bytes]"
    requests: BinaryIO
    answers: BinaryIO


# Processes that wait for a file, by module; a thread takes one, and puts it back.
_idle: defaultdict[str, list[_Process]] = defaultdict(list)


def ask(module: str, request: Sequence[object]) -> Iterator[tuple[bytes, bytes]]:
    """Send a request to a process of a module; yield (kind, data) of each frame but the last.

    Args:
        module: Its path: -m would look for packages in the user's directory first.
        request: What JSON can hold.

    Raises:
        ValueError: The answer is an error, with its text.
        ProcessDied: The process ended.
    """
    try:
        process = _idle[module].pop()
    except IndexError:
        process = _start(module)
    finished = False
    try:
        with contextlib.suppress(BrokenPipeError):
            process.requests.write(json.dumps(request).encode() + b"\n")
            process.requests.flush()
        while True:
            head = process.answers.read(_FRAME.size)
            size, kind = _FRAME.unpack(head) if len(head) == _FRAME.size else (0, b"")
            data = process.answers.read(size)
            if not kind or len(data) < size:
                code = process.popen.wait()
                raise ProcessDied(signal.Signals(-code).name if code < 0 else f"exit code {code}")
            if kind not in b"DE":
                yield kind, data
                continue
            finished = True
            if kind == b"E":
                raise ValueError(data.decode())
            return
    finally:
        if finished:
            _idle[module].append(process)
        else:
            process.popen.kill()
            for end in (process.requests, process.answers):
                with contextlib.suppress(BrokenPipeError):
                    end.close()
            process.popen.wait()


def _start(module: str) -> _Process:
    popen = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # "terminate called after ..", on the screen
    )
    assert popen.stdin is not None
    assert popen.stdout is not None
    return _Process(popen, popen.stdin, popen.stdout)  # type: ignore[arg-type]


def main() -> None:
    """Answer requests by the module until standard input ends."""
    spec = importlib.util.spec_from_file_location("decoder", sys.argv[1])
    assert spec is not None
    assert spec.loader is not None
    decoder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(decoder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; then the input ends
    resource.setrlimit(resource.RLIMIT_DATA, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer

    def send(kind: bytes, data: bytes) -> None:
        answers.write(_FRAME.pack(len(data), kind))
        answers.write(data)
        answers.flush()

    for line in sys.stdin:
        try:
            decoder.answer(json.loads(line), send)
        except Exception as error:  # decoders raise what they like
            name = "" if type(error) is ValueError else f"{type(error).__name__}: "
            send(b"E", f"{name}{error}"[:400].encode("utf-8", "replace"))
        else:
            send(b"D", b"")


if __name__ == "__main__":
    main()
