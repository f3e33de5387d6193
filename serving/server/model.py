"""A version in memory: its signatures, and calls of them."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.server.errors import Code, RequestError
from tokenmill.contracts.base import read_document
from tokenmill.contracts.tokenizer import DESCRIPTION_NAME, TokenizerAsset
from tokenmill.text.control_ids import TOKENMILL_CONTROL_IDS, ControlIds

WARMUP_PATH = os.path.join("assets.extra", "tf_serving_warmup_requests")


@dataclass(frozen=True)
class Signature:
    """SignatureDef in NumPy's terms.

    Attributes:
        name: Name of the signature.
        inputs: Type and shape of each input by name; -1 in a shape is any length.
        outputs: Names of the outputs, sorted.
        defaults: Values of inputs that a request may leave out.
    """

    name: str
    inputs: dict[str, tuple[np.dtype, tuple[int, ...]]]
    outputs: tuple[str, ...]
    defaults: dict[str, np.ndarray]


class LoadedModel:
    """SavedModel, loaded and warmed up.

    Args:
        directory: Directory of the version.
        version: Number of the version.
    """

    def __init__(self, directory: str, version: int):
        import tensorflow as tf
        import tensorflow_text  # noqa: F401  (registers the SentencePiece ops)

        self.directory, self.version = directory, version
        self.in_flight = 0  # requests that hold this version; touched by the event loop only
        self.padding = read_padding(directory)
        self.signature_defs = read_signature_defs(directory)
        self.signatures = {name: _signature(name, d) for name, d in self.signature_defs.items()}
        self._loaded = tf.saved_model.load(directory)
        self.functions = self._loaded.signatures
        self._warm_up(os.path.join(directory, WARMUP_PATH))

    def _warm_up(self, path: str) -> None:
        import tensorflow as tf
        from tensorflow_serving.apis import prediction_log_pb2

        if not os.path.exists(path):
            return
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if log.WhichOneof("log_type") is None:
                continue  # as TensorFlow Serving does
            request = log.predict_log.request
            inputs = {name: tf.make_ndarray(x) for name, x in request.inputs.items()}
            name = request.model_spec.signature_name
            self.run(name, self.bind(name, inputs)[0])

    def bind(
        self, signature_name: str, inputs: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], int]:
        """Check inputs against the signature and fill in what was left out.

        Returns:
            All inputs, each with the same first dimension, and that dimension.

        Raises:
            RequestError: An input is unknown, missing, or of the wrong type or shape.
        """
        signature = self.find(signature_name)
        unknown = sorted(set(inputs) - set(signature.inputs))
        if unknown:
            expected = ", ".join(sorted(signature.inputs))
            raise _invalid(
                f"signature {signature.name} has no input {unknown[0]!r:.80}; it has {expected}"
            )
        bound = {}
        for name, (dtype, shape) in signature.inputs.items():
            value = inputs.get(name, signature.defaults.get(name))
            if value is None:
                raise _invalid(f"signature {signature.name} needs the input {name}")
            if value.dtype != dtype:
                raise _invalid(f"{name} is of type {value.dtype}, expected {dtype}")
            fits = len(value.shape) == len(shape) and all(
                wanted in (-1, given) for wanted, given in zip(shape, value.shape, strict=True)
            )
            if not fits:
                raise _invalid(f"{name} has the shape {list(value.shape)}, expected {list(shape)}")
            bound[name] = value
        sizes = {name: len(value) for name, value in bound.items()}
        rows = next((n for n in sizes.values() if n != 1), 1)
        for name, size in sizes.items():
            if size == 1 and rows != 1:
                bound[name] = np.repeat(bound[name], rows, axis=0)
            elif size != rows:
                raise _invalid(f"{name} has {size} rows, other inputs have {rows}")
        return bound, rows

    def find(self, signature_name: str) -> Signature:
        """Return the signature of a name; an empty name is serving_default.

        Raises:
            RequestError: There is no such signature.
        """
        signature = self.signatures.get(signature_name or "serving_default")
        if signature is None:
            known = ", ".join(sorted(self.signatures))
            raise _invalid(f"no signature {signature_name!r:.80}; this model has {known}")
        return signature

    def run(self, signature_name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Call a signature on bound inputs.

        Raises:
            RequestError: The graph refused the inputs, or there is no memory for them.
        """
        import tensorflow as tf

        function = self.functions[self.find(signature_name).name]
        try:
            outputs = function(**{name: tf.constant(value) for name, value in inputs.items()})
            return {name: value.numpy() for name, value in outputs.items()}
        except tf.errors.InvalidArgumentError as error:
            raise _invalid(_reason(error.message)) from None
        except UnicodeDecodeError:  # the error's message quotes bytes of the input
            raise _invalid("the model refused the inputs, which are not valid UTF-8") from None
        except tf.errors.ResourceExhaustedError:
            raise RequestError(Code.RESOURCE_EXHAUSTED, "out of memory") from None
        except tf.errors.OpError as error:
            raise RequestError(Code.INTERNAL, _reason(error.message)) from None


def read_padding(directory: str) -> int:
    """Return what fills token ids up at the right: it is no token of any text."""
    path = os.path.join(directory, "assets.extra", DESCRIPTION_NAME)
    if not os.path.exists(path):  # of a model that tokenmill did not push
        return TOKENMILL_CONTROL_IDS.padding
    ids = read_document(path, TokenizerAsset).control_ids
    known = {name: value for name, value in ids.items() if name in ControlIds.model_fields}
    return ControlIds(**known).padding if known else TOKENMILL_CONTROL_IDS.padding


def _invalid(message: str) -> RequestError:
    return RequestError(Code.INVALID_ARGUMENT, message)


def _reason(message: str) -> str:
    """Return the words of an assertion in the graph, without the names of nodes."""
    for line in message.splitlines():
        if line.startswith("assertion failed: ["):
            return line.removeprefix("assertion failed: [").removesuffix("]")
    lines = [line for line in message.splitlines() if line.strip() and "node" not in line]
    return (lines or [message])[-1][:300]


def read_signature_defs(directory: str) -> dict[str, Any]:
    """Read the SignatureDefs of a SavedModel without loading it."""
    from tensorflow.core.protobuf import saved_model_pb2

    with open(os.path.join(directory, "saved_model.pb"), "rb") as source:
        saved = saved_model_pb2.SavedModel.FromString(source.read())
    defs = saved.meta_graphs[0].signature_def
    return {name: d for name, d in defs.items() if d.method_name}


def _signature(name: str, definition: Any) -> Signature:
    import tensorflow as tf

    def numpy_type(value: int) -> np.dtype:
        return np.dtype(tf.as_dtype(value).as_numpy_dtype)

    return Signature(
        name,
        {
            key: (
                numpy_type(info.dtype),
                tuple(d.size for d in info.tensor_shape.dim),
            )
            for key, info in sorted(definition.inputs.items())
        },
        tuple(sorted(definition.outputs)),
        {key: tf.make_ndarray(value) for key, value in definition.defaults.items()},
    )
