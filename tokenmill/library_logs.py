"""How the libraries' log lines look, in the pipeline's process and in those it starts."""

import logging
import os
import sys

# Name of a run's directory of logs: when it was started, UTC.
LOG_TIME_FORMAT = "%Y%m%dT%H%M%S.%fZ"


def set_up_library_logging() -> None:
    """Timestamps and levels for the log file; call before the first import of TensorFlow."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
        force=True,
    )
    logging.captureWarnings(True)  # google-api-core, Beam and others warn at import
