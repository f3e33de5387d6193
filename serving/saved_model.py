"""Pushed SavedModels: find and call them, with TensorFlow and tensorflow-text, without TFX."""

import contextlib
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
    try:
        names = os.listdir(path)
    except OSError:
        names = []
    versions = [n for n in names if n.isascii() and n.isdigit()]
    if not versions:
        raise TokenmillError(
            f"no pushed model in {path}.",
            "Run `tokenmill run` first, or name a SavedModel directory with --model.",
        )
    return os.path.join(path, max(versions, key=int))


def list_versions(base: str) -> list[int]:
    """Return the numbers of the complete versions in a base directory, ascending."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(base):
            whole = os.path.exists(os.path.join(base, name, "saved_model.pb"))
            if name.isascii() and name.isdigit() and whole:
                found.append(int(name))
    return sorted(set(found))


def load(path: str) -> Any:
    """Load a SavedModel with the tokenizer's ops registered."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  (registers the SentencePiece ops)

    return tf.saved_model.load(newest_version(path))


def call(model: Any, signature: str, text: str, **options: Any) -> dict[str, Any]:
    """Call a raw-text signature with one text; every option must be given.

    Args:
        model: Model that `load` returned.
        signature: Name of the signature: score, generate, embed or classify.
        text: The text.
        **options: The other inputs, one value each.

    Returns:
        The outputs by name, one value each; strings as text.

    Raises:
        TokenmillError: The model has no such signature: it is of another task.
    """
    import tensorflow as tf

    if signature not in model.signatures:
        raise TokenmillError(
            f"it has no signature {signature}, but {', '.join(sorted(model.signatures))}."
        )
    function = model.signatures[signature]
    given = {"text": [text], **{name: [value] for name, value in options.items()}}
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
    return value.tolist()


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
