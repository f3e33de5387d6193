"""Valid models of a contract from the keys only that a test looks at."""

import types
import typing


def complete(model, values, check=True):
    """Make a model; numbers that were not given are 1, texts and collections empty."""
    keys = {
        field.alias or name: _value(field.annotation, values.get(field.alias or name), check)
        for name, field in model.model_fields.items()
        if field.is_required() or name in values
    }
    assert set(values) <= set(keys), set(values) - set(keys)
    return model.model_validate(keys) if check else model.model_construct(**keys)


def _value(kind, given, check):
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        optional = types.NoneType in arguments
        return None if given is None and optional else _value(arguments[0], given, check)
    if origin is list:
        return [_value(arguments[0], item, check) for item in given or ()]
    if origin is dict:
        return {name: _value(arguments[1], item, check) for name, item in (given or {}).items()}
    if hasattr(kind, "model_fields"):
        return complete(kind, given or {}, check)
    if given is not None:
        return given
    return arguments[0] if origin is typing.Literal else "" if kind is str else kind(1)
