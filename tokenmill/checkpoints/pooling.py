"""How sentence-transformers makes one vector of a text: modules.json and what it names."""

import os
from dataclasses import dataclass
from typing import Any, Literal

from tokenmill.checkpoints.settings import CONFIG_NAME, Settings
from tokenmill.contracts.served_model import Pooling
from tokenmill.errors import TokenmillError
from tokenmill.files import read_json, write_json

MODULES_NAME = "modules.json"
_TRANSFORMER_NAME = "sentence_bert_config.json"
_TOKENIZER_NAME = "tokenizer_config.json"
_SHORTEST = 3  # [CLS], a token, [SEP]
_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}
# What sentence_bert_config.json may say beside the length: what a BERT does anyway.
_OF_TRANSFORMER: dict[str, tuple[Any, ...]] = {
    "do_lower_case": (False,),
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "modality_config": (
        {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    ),
}
# Whether the tokens of a prompt count: there is none.
_OF_POOLING = {"include_prompt": (True, False)}


@dataclass(frozen=True)
class SentenceModules:
    """What the modules of a sentence-transformers directory say.

    Attributes:
        width: Features of the vectors.
        mode: As in `Pooling`.
        normalized: As in `Pooling`.
        max_tokens: Tokens of a text that are read; None for as many as the model can.
    """

    width: int
    mode: Literal["mean", "cls"]
    normalized: bool
    max_tokens: int | None

    def pooling(self, max_positions: int) -> Pooling:
        """Return the pooling of a model that was made for rows of so many tokens."""
        longest = min(self.max_tokens or max_positions, max_positions)
        return Pooling(mode=self.mode, normalized=self.normalized, max_tokens=longest)


def read_modules(directory: str) -> tuple[str, SentenceModules | None]:
    """Read modules.json of a sentence-transformers directory, and what it names.

    Returns:
        The directory of the Transformer, and the modules; the directory itself and None where
        there is no modules.json.

    Raises:
        TokenmillError: A module, or a pooling, is none that is known here.
    """
    path = os.path.join(directory, MODULES_NAME)
    if not os.path.exists(path):
        return directory, None
    modules = _read(path, list)
    kinds, places = [], []
    for number, module in enumerate(modules):
        if not isinstance(module, dict) or not isinstance(module.get("type"), str):
            raise TokenmillError(
                f"{path}: module {number} = {module!r}: expected an object with type."
            )
        place = module.get("path", "")
        if not isinstance(place, str) or os.path.isabs(place) or ".." in place.split("/"):
            raise TokenmillError(
                f"{path}: module {number}: path = {place!r}: expected a directory within this one."
            )
        kinds.append(module["type"].rsplit(".", 1)[-1])
        places.append(place)
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise TokenmillError(
            f"{path}: the modules are {', '.join(kinds) or 'none'}: expected Transformer, Pooling "
            "and perhaps Normalize, as nothing else can be expressed here.",
            f"To take the Transformer without them, remove {MODULES_NAME}.",
        )
    width, mode = _read_mode(os.path.join(directory, places[1], CONFIG_NAME))
    transformer = os.path.join(directory, places[0]).rstrip("/")
    longest = _read_max_tokens(transformer)
    return transformer, SentenceModules(width, mode, len(kinds) == 3, longest)


def write_modules(directory: str, pooling: Pooling, width: int) -> list[str]:
    """Make a checkpoint's directory one of sentence-transformers, of any version.

    Args:
        directory: Where config.json and the weights lie.
        pooling: What is written.
        width: Features of the vectors.

    Returns:
        The names of the files, which `read_modules` reads.
    """
    kinds = ["Transformer", "Pooling", "Normalize"][: 3 if pooling.normalized else 2]
    places = ["", "1_Pooling", "2_Normalize"]
    files: dict[str, Any] = {
        MODULES_NAME: [
            {
                "idx": i,
                "name": str(i),
                "path": places[i],
                "type": f"sentence_transformers.models.{kind}",
            }
            for i, kind in enumerate(kinds)
        ],
        _TRANSFORMER_NAME: {"max_seq_length": pooling.max_tokens, "do_lower_case": False},
        f"{places[1]}/{CONFIG_NAME}": {
            "word_embedding_dimension": width,
            **{name: mode == pooling.mode for name, mode in _MODES.items()},
        },
    }
    for place in places[1 : len(kinds)]:
        os.makedirs(os.path.join(directory, place))
    for name, content in files.items():
        write_json(os.path.join(directory, name), content)
    return list(files)


def _read_max_tokens(transformer: str) -> int | None:
    """Read where texts are cut: as the module says, else the tokenizer; None if neither does."""
    path = os.path.join(transformer, _TRANSFORMER_NAME)
    if os.path.exists(path):
        settings = Settings(path, _read(path, dict))
        stated = "max_seq_length" in settings and not settings.is_null("max_seq_length")
        longest = settings.size("max_seq_length", _SHORTEST)
        settings.refuse_others(_OF_TRANSFORMER)
        if stated:
            return _at_least_a_token(settings, "max_seq_length", longest)
    path = os.path.join(transformer, _TOKENIZER_NAME)
    if not os.path.exists(path):
        return None
    settings = Settings(path, _read(path, dict))
    if settings.is_null("model_max_length"):
        return None
    # transformers writes 1e30 for no limit.
    longest = int(settings.number("model_max_length"))
    return _at_least_a_token(settings, "model_max_length", longest)


def _at_least_a_token(settings: Settings, name: str, longest: int) -> int:
    if longest < _SHORTEST:
        raise settings.refusal(name, f"at least {_SHORTEST}: [CLS], a token and [SEP]")
    return longest


def _read_mode(path: str) -> tuple[int, Any]:
    """Read width and mode of the pooling."""
    values = _read(path, dict)
    settings = Settings(path, values)
    # Its name since sentence-transformers 6.
    renamed = "embedding_dimension"
    width = settings.size(renamed if renamed in settings else "word_embedding_dimension")
    chosen = [k for k in values if k.startswith("pooling_mode_") and settings.flag(k, False)]
    if chosen == [] and "pooling_mode" in settings:
        mode = settings.choice("pooling_mode", {"mean": "mean", "cls": "cls"}, "mean")
    elif len(chosen) == 1 and chosen[0] in _MODES:
        mode = _MODES[chosen[0]]
    else:
        raise TokenmillError(
            f"{path}: {' and '.join(chosen) or 'no pooling_mode'} is true: expected one of "
            f"{' and '.join(_MODES)}, as nothing else can be expressed here.",
        )
    settings.refuse_others(_OF_POOLING)
    return width, mode


def _read(path: str, kind: type) -> Any:
    try:
        values = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise TokenmillError(
            f"{path}: cannot be read as JSON: {error}.", "Fetch it again."
        ) from None
    if not isinstance(values, kind):
        raise TokenmillError(f"{path}: expected a JSON {'array' if kind is list else 'object'}.")
    return values
