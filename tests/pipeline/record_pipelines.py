"""`tokenmill run ..` that leaves the proto of every Beam pipeline it builds in a directory.

python -m record_pipelines DIRECTORY run ..
"""

import pathlib
import sys

import apache_beam as beam
from apache_beam.transforms import environments

from pipeline.cli import cli

IMAGE = "europe-docker.pkg.dev/p/r/tokenmill@sha256:" + "a" * 64
_run = beam.Pipeline.run


def _executor() -> str:
    """The TFX executor that builds the pipeline at hand."""
    frame = sys._getframe()
    while frame is not None:
        name = type(frame.f_locals.get("self")).__name__
        if name.endswith("Executor") or frame.f_code.co_name == "Do":
            return name
        frame = frame.f_back
    return "none"


def main(directory: pathlib.Path) -> None:
    def run(self, test_runner_api="AUTO"):
        if test_runner_api == "AUTO":  # not Beam's own second call
            number = len(list(directory.iterdir()))
            image = environments.DockerEnvironment.from_container_image(IMAGE)
            proto = self.to_runner_api(default_environment=image)
            (directory / f"{number:02}-{_executor()}").write_bytes(proto.SerializeToString())
        return _run(self, test_runner_api)

    beam.Pipeline.run = run
    cli(sys.argv[2:])


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
