"""Pushed SavedModels: find and call them, with TensorFlow and tensorflow-text, without TFX."""

import os
from typing import Any

from tokenmill.errors import TokenmillError

_SMALL_PARAMETERS = 20_000_000


def newest_version(path: str) -> str:
    """Return the SavedModel at `path`, or the highest-numbered version below it.

    Raises:
        TokenmillError: There is none.
    """
    if os.path.exists(os.path.join(path, "saved_model.pb")):
        return path
    versions = _named_versions(path)
    if not versions:
        raise TokenmillError(
            f"no pushed model in {path}.",
            "Run `tokenmill run` first, or name a SavedModel directory with --model.",
        )
    return os.path.join(path, versions[max(versions)])


def version_names(base: str) -> dict[int, str]:
    """Map the complete versions of a base directory to the names of their directories.

    As TensorFlow Serving does: a name that is no number of 63 bits is none of a version; of several
    names of one number, such as 1 and 01, the last in the order of names is it.

    Raises:
        OSError: The directory cannot be read.
    """
    numbered = {
        int(name): name for name in sorted(os.listdir(base)) if name.isascii() and name.isdigit()
    }
    return {
        number: name
        for number, name in sorted(numbered.items())
        if number < 2**63 and os.path.exists(os.path.join(base, name, "saved_model.pb"))
    }


def _named_versions(base: str) -> dict[int, str]:
    try:
        return version_names(base)
    except OSError:
        return {}


def list_versions(base: str) -> list[int]:
    """Return the numbers of the complete versions in a base directory, ascending."""
    return list(_named_versions(base))


def load(path: str) -> Any:
    """Load a SavedModel with the tokenizer's ops registered."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  (registers the SentencePiece ops)

    return tf.saved_model.load(newest_version(path))


def call(model: Any, signature: str, text: str, **options: Any) -> dict[str, Any]:
    """Call a raw-text signature with one text; every option must be given.

    Args:
        model: Model that `load` returned.
        signature: Name of the signature: score, generate, chat, embed or classify.
        text: The text; for chat what `tokenmill.text.chat.Chat` writes.
        **options: The other inputs, one value each.

    Returns:
        The outputs by name, one value each; strings as text, None for what is no number.

    Raises:
        TokenmillError: The model has no such signature: it is of another task.
    """
    import tensorflow as tf

    if signature not in model.signatures:
        raise TokenmillError(
            f"it has no signature {signature}, but {', '.join(sorted(model.signatures))}.",
            "Give a model of another train.task, or use a command for this one: generate and score "
            "are of causal-lm, classify is of classification.",
        )
    function = model.signatures[signature]
    given = {"text": [text], "prompt": [text], **{name: [value] for name, value in options.items()}}
    inputs = {
        name: tf.constant(given[name], spec.dtype)
        for name, spec in function.structured_input_signature[1].items()
    }
    outputs = {name: value.numpy()[0] for name, value in function(**inputs).items()}
    return {name: _plain(value) for name, value in outputs.items()}


def _plain(value: Any) -> Any:
    """Convert an array or a string to numbers or text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if value.dtype == object:
        return [_plain(item) for item in value]
    return None if value.ndim == 0 and value != value else value.tolist()


def context_length(path: str) -> int:
    """Read how many tokens the model's context has, from the description beside it.

    Raises:
        OSError: The description is missing.
    """
    from tokenmill.contracts.served_model import read_served_model

    return read_served_model(newest_version(path)).model_shape.sequence_length


def limit_threads(path: str, threads: int | None) -> None:
    """Set how many threads an operation may use; before TensorFlow computes anything.

    Args:
        path: A SavedModel, or a directory of versions.
        threads: Number of threads; 0 leaves it to TensorFlow, which takes all cores. None takes 1
            for a model so small that its operations end before threads have agreed on their shares.
    """
    if threads is None:
        from tokenmill.contracts.served_model import read_served_model

        try:
            threads = int(read_served_model(newest_version(path)).parameters < _SMALL_PARAMETERS)
        except (OSError, ValueError, TokenmillError):  # a model of another maker
            threads = 0
    if threads:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
