"""Executions that ended without a word: a signal, a crash, a machine that went away."""

import glob
import os

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

_RUNNING = (metadata_store_pb2.Execution.NEW, metadata_store_pb2.Execution.RUNNING)


def mark_unfinished(
    store: mlmd.MetadataStore, pipeline: str, pipeline_root: str, state: int
) -> list[int]:
    """Give the executions of a directory that are said to run another state; return their ids.

    Call it under the directory's lock, while no step runs. On a server other directories may have
    a pipeline of the same name: an execution is this one's if TFX has made it a directory here.

    Args:
        store: ML Metadata.
        pipeline: The pipeline's name.
        pipeline_root: Where its artifacts are.
        state: A state of ML Metadata's Execution.
    """
    context = store.get_context_by_type_and_name("pipeline", pipeline)
    if context is None:  # no step of it has begun
        return []
    pattern = os.path.join(glob.escape(pipeline_root), "*", ".system", "executor_execution", "*")
    mine = {os.path.basename(path) for path in glob.glob(pattern)}
    unfinished = [
        execution
        for execution in store.get_executions_by_context(context.id)
        if execution.last_known_state in _RUNNING and str(execution.id) in mine
    ]
    for execution in unfinished:
        execution.last_known_state = state
    if unfinished:
        store.put_executions(unfinished)
    return [execution.id for execution in unfinished]
