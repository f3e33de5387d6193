"""Weights to start a training from: a pushed model's, or those of an open model."""

from tokenmill.checkpoints.checkpoint import read_checkpoint
from tokenmill.checkpoints.directory import is_checkpoint
from tokenmill.model.backbone import Backbone
from tokenmill.model.base_model import load_base_model


def load_start_weights(model: Backbone, directory: str, tokenizer_path: str) -> list[str]:
    """Assign the weights of a base model; a head that it lacks keeps its random start.

    Args:
        model: Built; its other weights are overwritten.
        directory: A SavedModel that tokenmill exported, or a Hugging Face checkpoint.
        tokenizer_path: The tokenizer that this run's rows are made with; compared with an exported
            model's.

    Returns:
        Paths of the variables that kept their random start.

    Raises:
        TokenmillError: There is no such model, or its tokenizer or shape is another.
    """
    if is_checkpoint(directory):
        return read_checkpoint(directory, model.shape_config.sequence_length).assign(model)
    return load_base_model(model, directory, tokenizer_path)
