"""How the libraries' log lines look, in the pipeline's process and in those it starts."""

import logging
import os
import sys

from tokenmill.visible import visible_lines

# Name of a run's directory of logs: when it was started, UTC.
LOG_TIME_FORMAT = "%Y%m%dT%H%M%S.%fZ"


class _VisibleFormatter(logging.Formatter):
    """Formatter of lines that may quote data."""

    def format(self, record: logging.LogRecord) -> str:
        return visible_lines(super().format(record))


def set_up_library_logging() -> None:
    """Timestamps and levels for the log file; call before the first import of TensorFlow."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_VisibleFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)  # google-api-core, Beam and others warn at import
