"""Processes that decode files which may be damaged or hostile: their death is an error of one file.

A process is a script that reads a request a line (JSON) from standard input and answers each by
frames of an 8-byte length, a kind and data; the kind D (done) or E (an error) is the last.
"""

import contextlib
import json
import signal
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

FRAME = struct.Struct("<Qc")


class ProcessDied(Exception):
    """The process ended before it had answered; the message says how."""


class _Process(NamedTuple):
    popen: "subprocess.Popen[bytes]"
    requests: BinaryIO
    answers: BinaryIO


# Processes that wait for a file, by script; a thread takes one, and puts it back.
_idle: defaultdict[str, list[_Process]] = defaultdict(list)


def ask(script: str, request: Sequence[object]) -> Iterator[tuple[bytes, bytes]]:
    """Send a request to a process of `script`; yield (kind, data) of each frame but the last.

    Args:
        script: Its path: -m would look for packages in the user's directory first.
        request: What JSON can hold.

    Raises:
        ValueError: The answer is an error, with its text.
        ProcessDied: The process ended.
    """
    try:
        process = _idle[script].pop()
    except IndexError:
        process = _start(script)
    finished = False
    try:
        with contextlib.suppress(BrokenPipeError):
            process.requests.write(json.dumps(request).encode() + b"\n")
            process.requests.flush()
        while True:
            head = process.answers.read(FRAME.size)
            size, kind = FRAME.unpack(head) if len(head) == FRAME.size else (0, b"")
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
            _idle[script].append(process)
        else:
            process.popen.kill()
            for end in (process.requests, process.answers):
                with contextlib.suppress(BrokenPipeError):
                    end.close()
            process.popen.wait()


def _start(script: str) -> _Process:
    popen = subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # "terminate called after ..", on the screen
    )
    assert popen.stdin is not None
    assert popen.stdout is not None
    return _Process(popen, popen.stdin, popen.stdout)  # type: ignore[arg-type]
