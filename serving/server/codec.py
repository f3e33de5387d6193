"""TensorFlow Serving's JSON: rows (`instances`) and columns (`inputs`), to and from arrays.

The format: https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import binascii
import reprlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import orjson

from serving.server.errors import Code, RequestError
from serving.server.model import Signature

Layout = Literal["rows", "columns"]


def _invalid(message: str) -> RequestError:
    return RequestError(Code.INVALID_ARGUMENT, message)


def _shown(value: Any) -> str:
    """Return the beginning of a value as text, however deep it is nested."""
    return reprlib.repr(value)[:80]


def decode_body(
    body: bytes, find: Callable[[str], Signature]
) -> tuple[Signature, dict[str, np.ndarray], Layout]:
    """Parse a predict request into signature, inputs, and the layout of its answer.

    Args:
        body: JSON, UTF-8.
        find: Returns the signature of a name; the empty name is the default.

    Raises:
        RequestError: The body is no JSON or does not fit the signature.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _invalid(f"the body is not JSON in UTF-8: {error}") from None
    if not isinstance(document, dict):
        raise _invalid("the body must be a JSON object")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise _invalid("signature_name must be a string")
    signature = find(name)
    if ("instances" in document) == ("inputs" in document):
        raise _invalid('the body needs "instances" (rows) or "inputs" (columns), one of them')
    if "instances" in document:
        return signature, _from_rows(document["instances"], signature), "rows"
    return signature, _from_columns(document["inputs"], signature), "columns"


def _from_rows(instances: Any, signature: Signature) -> dict[str, np.ndarray]:
    if not isinstance(instances, list) or not instances:
        raise _invalid('"instances" must be a list of at least one row')
    named = [isinstance(row, dict) and "b64" not in row for row in instances]
    if not all(named):
        if any(named):
            raise _invalid('"instances" must hold objects or plain values, not both')
        name = _only_required(signature)
        return {name: _array(instances, name, signature)}
    names = set(instances[0])
    if any(set(row) != names for row in instances):
        raise _invalid("all rows must have the same inputs")
    return {
        name: _array([row[name] for row in instances], name, signature) for name in sorted(names)
    }


def _from_columns(inputs: Any, signature: Signature) -> dict[str, np.ndarray]:
    if not isinstance(inputs, dict) or set(inputs) == {"b64"}:
        name = _only_required(signature)
        return {name: _array(inputs, name, signature)}
    return {name: _array(value, name, signature) for name, value in inputs.items()}


def _only_required(signature: Signature) -> str:
    required = [name for name in signature.inputs if name not in signature.defaults]
    if len(required) != 1:
        raise _invalid(f"name the inputs: {', '.join(signature.inputs)}")
    return required[0]


def _array(value: Any, name: str, signature: Signature) -> np.ndarray:
    if name not in signature.inputs:
        known = ", ".join(signature.inputs)
        raise _invalid(f"signature {signature.name} has no input {name!r:.80}; it has {known}")
    dtype, shape = signature.inputs[name]
    if shape and not isinstance(value, list):
        value = [value]  # one value for all rows
    if dtype.kind == "O":
        return _string_array(value, name)
    try:
        array = np.array(value)
    except ValueError:
        raise _invalid(f"{name}: the rows have different lengths") from None
    if array.size == 0:
        return array.reshape(array.shape).astype(dtype)
    kinds = {"i": "iu", "u": "iu", "f": "iuf", "b": "b"}[dtype.kind]
    if array.dtype.kind not in kinds:
        raise _invalid(f"{name}: expected numbers of type {dtype}, not {_shown(value)}")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise _invalid(f"{name}: a number is out of the range of {dtype}")
    return array.astype(dtype)


def _string_array(value: Any, name: str) -> np.ndarray:
    """Convert a list of strings to an array of bytes objects."""
    if not isinstance(value, list):
        raise _invalid(f"{name}: expected strings")
    array = np.empty(len(value), object)
    for i, item in enumerate(value):
        array[i] = _bytes(item, name)
    return array


def _bytes(item: Any, name: str) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, dict) and set(item) == {"b64"} and isinstance(item["b64"], str):
        try:
            return base64.b64decode(item["b64"], validate=True)
        except (binascii.Error, ValueError):
            raise _invalid(f"{name}: b64 is not base64") from None
    raise _invalid(f'{name}: expected strings (or {{"b64": ...}}), not {_shown(item)}')


def encode_answer(outputs: dict[str, np.ndarray], layout: Layout) -> bytes:
    """Write outputs as TensorFlow Serving's JSON; a single output stands without its name."""
    values = {name: _plain(value) for name, value in outputs.items()}
    answer: Any
    if layout == "columns":
        answer = {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    elif len(values) == 1:
        answer = {"predictions": next(iter(values.values()))}
    else:
        rows = zip(*values.values(), strict=True)
        answer = {"predictions": [dict(zip(values, row, strict=True)) for row in rows]}
    # Arrays are written as they are: as lists of Python's numbers they take ten times the memory.
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _plain(value: np.ndarray) -> Any:
    if value.dtype == object:
        return _decoded(value.tolist())
    return np.ascontiguousarray(value)


def _decoded(value: Any) -> Any:
    """Decode nested lists of bytes as text."""
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode("utf-8", "replace")
