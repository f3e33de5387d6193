import logging
import os
import signal

from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
logging.getLogger("absl").setLevel(logging.ERROR)

# In a background job SIGINT is ignored, and so it would be in every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline by the clock fails on a busy machine, not on a slow function; benchmarks/ measures.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
