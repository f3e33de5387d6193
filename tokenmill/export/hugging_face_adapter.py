"""A pushed model's adapters for Hugging Face's PEFT, with the tokenizer: no weight of the base."""

import os
from typing import Any, NamedTuple

from tokenmill.checkpoints.directory import is_checkpoint
from tokenmill.checkpoints.writing import find_form
from tokenmill.contracts.chat import find_chat_format
from tokenmill.contracts.served_model import read_served_model
from tokenmill.errors import TokenmillError
from tokenmill.export.adapter_files import ADAPTER_DIRECTORY, CONFIG_NAME, WEIGHTS_NAME
from tokenmill.export.hugging_face_tokenizer import write_tokenizer
from tokenmill.export.tokenizer_assets import read_tokenizer_asset
from tokenmill.files import make_empty_directory, open_file, read_json, write_bytes, write_json

_BASE_MODEL = "base_model_name_or_path"


class AdapterExport(NamedTuple):
    """What was written.

    Attributes:
        files: Names of the files.
        config: Content of adapter_config.json.
    """

    files: list[str]
    config: dict[str, Any]


def export_adapter(
    saved_model: str, directory: str, base_model: str | None = None
) -> AdapterExport:
    """Write adapter_config.json, adapter_model.safetensors and the tokenizer's files.

    Args:
        saved_model: A SavedModel that tokenmill pushed.
        directory: Where to; made if it is not there, and empty.
        base_model: What PEFT loads the frozen weights from: a directory, or a model's name on the
            hub; None for the run's own model.base_model.

    Raises:
        TokenmillError: The model has no adapters, PEFT knows no class for it, its base model is
            none of transformers', or the directory holds something.
    """
    source = os.path.join(saved_model, "assets.extra", ADAPTER_DIRECTORY)
    if not os.path.exists(os.path.join(source, CONFIG_NAME)):
        raise TokenmillError(
            f"{saved_model} has no adapters: all its weights were trained.",
            "Export them: leave --adapter out. Adapters are trained with train.lora_rank.",
        )
    shape = read_served_model(saved_model).model_shape
    find_form(shape)  # raises where transformers has no class
    config: dict[str, Any] = read_json(os.path.join(source, CONFIG_NAME))
    config[_BASE_MODEL] = base_model or _of_transformers(config[_BASE_MODEL])
    make_empty_directory(directory)
    write_json(os.path.join(directory, CONFIG_NAME), config)
    with open_file(os.path.join(source, WEIGHTS_NAME)) as weights:
        write_bytes(os.path.join(directory, WEIGHTS_NAME), weights.read())
    chat_format = find_chat_format(os.path.join(saved_model, "assets.extra"))
    tokenizer = write_tokenizer(read_tokenizer_asset(saved_model), directory, shape, chat_format)
    return AdapterExport([CONFIG_NAME, WEIGHTS_NAME, *tokenizer.files], config)


def _of_transformers(base_model: str) -> str:
    """Return the base model, unless it is a directory that transformers cannot load."""
    if os.path.isdir(base_model) and not is_checkpoint(base_model):
        raise TokenmillError(
            f"the adapters' base model, {base_model}, is no checkpoint that PEFT can load: it has "
            "no config.json.",
            f"Export it, tokenmill export hf {base_model} BASE, and name that: --base-model BASE",
        )
    return base_model
