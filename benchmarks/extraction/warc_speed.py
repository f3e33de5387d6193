"""WARC to text, beside datatrove's WarcReader and its extractor, Trafilatura.

    PYTHONPATH=. python benchmarks/extraction/warc_speed.py FILE.warc.gz PEER_PYTHON

One after the other, CPU seconds of each and its children; the imports of ours, in the process that
extracts, are counted, the peer's are not. The peer's environment (Python 3.11): pip install
"datatrove[io]==0.10.1" warcio cchardet python-magic trafilatura "lxml[html_clean]".
"""

import json
import os
import subprocess
import sys
import time

import psutil

PEER = """
import json, os, sys, time
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.readers import WarcReader
directory, name = os.path.split(sys.argv[1])
extractor = Trafilatura(favour_precision=True)
started = time.process_time()
count = size = 0
for document in extractor(WarcReader(directory, glob_pattern=name)()):
    count += 1
    size += len(document.text.encode())
print(json.dumps({"documents": count, "bytes": size, "cpu_seconds": sum(os.times()[:4]) - started}))
"""


def ours(path: str) -> dict[str, float]:
    """Read the archive as a run does; return documents, bytes of text and CPU seconds."""
    from components.ingest.config import CorpusConfig
    from components.ingest.manifest import list_inputs
    from components.ingest.readers import read_file
    from components.ingest.records import Document

    started = time.process_time()
    items = [
        len(item.text)
        for file in list_inputs((path,), "FILE")
        for item in read_file(file, CorpusConfig())
        if isinstance(item, Document)
    ]
    seconds = time.process_time() - started
    for child in psutil.Process().children():  # it waits for the next file
        seconds += sum(child.cpu_times()[:2])
    return {"documents": len(items), "bytes": sum(items), "cpu_seconds": seconds}


def main() -> None:
    """Measure both and print MB of text a CPU second and their ratio."""
    path, python = os.path.abspath(sys.argv[1]), sys.argv[2]
    found = {"tokenmill": ours(path)}
    done = subprocess.run([python, "-c", PEER, path], check=True, stdout=subprocess.PIPE)
    found["datatrove"] = json.loads(done.stdout.splitlines()[-1])
    for name, numbers in found.items():
        numbers["documents_per_cpu_second"] = numbers["documents"] / numbers["cpu_seconds"]
        print(name, json.dumps(numbers))
    ratio = found["datatrove"]["cpu_seconds"] / found["tokenmill"]["cpu_seconds"]
    print(f"datatrove takes {ratio:.1f} times the CPU time")


if __name__ == "__main__":
    main()
