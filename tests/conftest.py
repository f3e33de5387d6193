import logging
import os
import pathlib
import signal

from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
logging.getLogger("absl").setLevel(logging.ERROR)

# In a background job SIGINT is ignored, and so it would be in every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline by the clock fails on a busy machine, not on a slow function; benchmarks/ measures.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

# Marked "core": where another Python, TensorFlow, protobuf, numpy or Beam shows first; some ten
# minutes on two cores. CI runs them on the stack that the machine does not have.
CORE = (
    "test_",  # the files beside this one
    "curate/test_curator_executor.py",
    "data/",
    "evaluate/",
    "ingest/test_ingest_formats.py",
    "ingest/test_ingest_tables.py",
    "ingest/test_ingest_tfrecord.py",
    "pack/test_pack_transform.py",
    "pack/test_packing.py",
    "pipeline/test_beam_arguments.py",
    "pipeline/test_compiled_spec.py",
    "pipeline/test_config.py",
    "push/",
    "records/",
    "serving/test_server.py",
    "serving/test_decoding.py",
    "serving/test_signatures.py",
    "serving/test_step_signatures.py",
    "serving/test_tflite.py",
    "tokenize/test_tokenize_transform.py",
    "train/test_bfloat16.py",
    "train/test_checkpoints.py",
    "train/test_decoder.py",
    "train/test_losses.py",
    "train/test_numerics.py",
    "train/test_optimizer.py",
    "train/test_saving.py",
    "validate/",
)


def pytest_collection_modifyitems(items):
    here = pathlib.Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).as_posix().startswith(CORE):
            item.add_marker("core")
