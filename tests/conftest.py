import logging
import os

from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
logging.getLogger("absl").setLevel(logging.ERROR)

# A deadline by the clock fails on a busy machine, not on a slow function; benchmarks/ measures.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
