"""config.json of a checkpoint: every setting is understood, known to be harmless, or refused."""

import math
import sys
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from tokenmill.errors import TokenmillError
from tokenmill.files import read_json
from tokenmill.visible import visible

CONFIG_NAME = "config.json"

# Settings that change nothing in the computation of a trained model: where it is from, how it was
# trained, what its tokenizer and its generation are, what PyTorch returns.
_HARMLESS = frozenset(
    {
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_commit_hash",
        "_flash_attn_2_enabled",
        "_name_or_path",
        "attention_dropout",
        "attention_probs_dropout_prob",
        "attn_pdrop",
        "bad_words_ids",
        "begin_suppress_tokens",
        "bos_token_id",
        "chunk_size_feed_forward",
        "classifier_dropout",
        "cls_token_id",
        "decoder_start_token_id",
        "directionality",
        "diversity_penalty",
        "do_sample",
        "dtype",
        "early_stopping",
        "embd_pdrop",
        "encoder_no_repeat_ngram_size",
        "eos_token_id",
        "exponential_decay_length_penalty",
        "finetuning_task",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "gradient_checkpointing",
        "hidden_dropout_prob",
        "id2label",
        "initializer_range",
        "is_llama_config",
        "label2id",
        "length_penalty",
        "mask_token_id",
        "max_length",
        "max_window_layers",
        "min_length",
        "model_type",
        "n_ctx",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_labels",
        "num_return_sequences",
        "output_attentions",
        "output_hidden_states",
        "output_past",
        "output_router_logits",
        "output_scores",
        "pad_token_id",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
        "prefix",
        "pretraining_tp",
        "problem_type",
        "remove_invalid_values",
        "repetition_penalty",
        "resid_pdrop",
        "return_dict",
        "return_dict_in_generate",
        "router_aux_loss_coef",
        "router_jitter_noise",
        "sep_token_id",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        "suppress_tokens",
        "task_specific_params",
        "temperature",
        "tf_legacy_loss",
        "tokenizer_class",
        "top_k",
        "top_p",
        "torch_dtype",
        "torchscript",
        "transformers.js_config",
        "transformers_version",
        "typical_p",
        "unk_token_id",
        "use_bfloat16",
        "use_cache",
    }
)
# Settings of all families that have one value here; what leaves them out means it.
_ONLY: Mapping[str, Collection[Any]] = {
    "add_cross_attention": (False,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "partial_rotary_factor": (1, 1.0),
    "pruned_heads": ({},),
    "rope_interleaved": (False,),
    "tie_encoder_decoder": (False,),
    "use_mrope": (False,),
}

_Value = TypeVar("_Value")


class Settings:
    """The settings of one config.json, or of a table in it.

    A setting that is null is as one that is not there: transformers writes those that are off so.

    Args:
        path: The file, for messages.
        values: What it holds.
        inside: The table's name, for messages; empty for the whole file.
    """

    def __init__(self, path: str, values: Mapping[str, Any], inside: str = ""):
        self.path, self.inside, self._values = path, inside, values
        self._read: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def is_null(self, key: str) -> bool:
        """Return whether a setting is there and null."""
        return key in self._values and self._values[key] is None

    def refusal(self, key: str, expected: str, hint: str = "") -> TokenmillError:
        """Return the error that names a setting, its value and what was expected."""
        name = visible(f"{self.inside}.{key}" if self.inside else key)
        said = f"{name} = {self._values[key]!r}" if key in self else f"{name} is missing"
        return TokenmillError(f"{self.path}: {said}: expected {expected}.", hint)

    def _take(self, key: str) -> Any:
        self._read.add(key)
        return self._values.get(key)

    def size(self, key: str, default: int | None = None) -> int:
        """Return a whole number of at least 1; without a default it has to be there.

        Raises:
            TokenmillError: It is missing, or something else.
        """
        value = self._take(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.refusal(key, "a whole number of at least 1")
        return value

    def count(self, key: str, default: int = 0) -> int:
        """Return a whole number of at least 0.

        Raises:
            TokenmillError: It is something else.
        """
        value = self._take(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.refusal(key, "a whole number of at least 0")
        return value

    def list_of_counts(self, key: str) -> list[int]:
        """Return a list of whole numbers of at least 0; an empty one if it is missing.

        Raises:
            TokenmillError: It is something else.
        """
        value = self._take(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(type(x) is int and x >= 0 for x in value):
            raise self.refusal(key, "a list of whole numbers of at least 0")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number above 0; without a default it has to be there.

        Raises:
            TokenmillError: It is missing, or something else.
        """
        value = self._take(key)
        if value is None and default is not None:
            return default
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf or value > sys.float_info.max:
            raise self.refusal(key, "a number above 0")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false.

        Raises:
            TokenmillError: It is something else.
        """
        value = self._take(key)
        if value is not None and not isinstance(value, bool):
            raise self.refusal(key, "true or false")
        return default if value is None else value

    def choice(self, key: str, meaning: Mapping[str, _Value], default: str) -> _Value:
        """Return what a setting's value means here.

        Args:
            key: The setting.
            meaning: By the values that can be expressed.
            default: The value where the setting is missing.

        Raises:
            TokenmillError: The value cannot be expressed.
        """
        value = self._take(key)
        value = default if value is None else value
        if not isinstance(value, str) or value not in meaning:
            raise self.refusal(key, f"one of {', '.join(meaning)}, which can be expressed here")
        return meaning[value]

    def table(self, key: str) -> "Settings | None":
        """Return the settings of a table; None if there is none.

        Raises:
            TokenmillError: It is something else.
        """
        value = self.mapping(key)
        return Settings(self.path, value, key) if key in self else None

    def mapping(self, key: str) -> dict[str, Any]:
        """Return a table as it is; an empty one if it is missing.

        Raises:
            TokenmillError: It is something else.
        """
        value = self._take(key)
        if value is not None and not isinstance(value, dict):
            raise self.refusal(key, "an object")
        return value or {}

    def list_of_names(self, key: str) -> list[str]:
        """Return a list of strings; an empty one if it is missing.

        Raises:
            TokenmillError: It is something else.
        """
        value = self._take(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self.refusal(key, "a list of strings")
        return value

    def refuse_others(self, only: Mapping[str, Collection[Any]] | None = None) -> None:
        """Raise at the first setting that was not read and is not known to be harmless.

        Args:
            only: By setting the values that can be expressed, beside those of all families.

        Raises:
            TokenmillError: Names the setting.
        """
        allowed = {**_ONLY, **(only or {})}
        for key in sorted(self._values.keys() - self._read - _HARMLESS):
            value, known = self._values[key], allowed.get(key)
            if value is None:
                continue
            if known is None:
                raise self.refusal(
                    key,
                    "no such setting, since what it changes is unknown here",
                    "If it changes nothing in the model's computation, remove it from the file.",
                )
            if not any(value == one and type(value) is type(one) for one in known):
                values = " or ".join(dict.fromkeys(str(one).lower() for one in known))
                raise self.refusal(key, f"{values}, as nothing else can be expressed here")


def read_settings(directory: str) -> Settings:
    """Read config.json of a checkpoint's directory.

    Raises:
        TokenmillError: It is missing or no JSON object, or asks for code of its own.
    """
    path = f"{directory.rstrip('/')}/{CONFIG_NAME}"
    try:
        values = read_json(path)
    except FileNotFoundError:
        raise TokenmillError(
            f"{path}: there is no such file, so {directory} is no Hugging Face checkpoint.",
            "Give a directory with config.json and model.safetensors; what is on a hub has to be "
            "fetched first, such as by `hf download NAME --local-dir DIR`.",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise TokenmillError(
            f"{path}: cannot be read as JSON: {error}.", "Fetch it again."
        ) from None
    if not isinstance(values, dict):
        raise TokenmillError(f"{path}: expected a JSON object.", "Fetch it again.")
    settings = Settings(path, values)
    if "auto_map" in settings:
        raise settings.refusal(
            "auto_map",
            "none: the model's computation is code in the checkpoint, which is not run",
            "Take a checkpoint of a family that transformers itself has.",
        )
    if "quantization_config" in settings:
        raise settings.refusal(
            "quantization_config",
            "none, as only weights of 16 or 32 bits are read",
            "Take the checkpoint that was not quantized.",
        )
    return settings
