"""Reads presets, TOML files and `--set` into a `Config`, with errors that say what to type."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomli
import tomli_w
from pydantic import BaseModel, ValidationError

from components.curate.quality.config import QualityConfig
from components.train.config import ExecutionConfig
from pipeline.base_model import base_model_values, tokenizer_values
from pipeline.config import Config, StepResources
from tokenmill.errors import TokenmillError
from tokenmill.nearest import did_you_mean

_Config = TypeVar("_Config", bound=Config)

_PRESETS = Path(__file__).parent / "presets"
# How the presets begin that start from a trained model.
_ADAPTING = "adapt-"
# Where a key is now that was elsewhere before.
_MOVED = {
    "push.weights": "push.quantization",
    "push.max_probe_seconds": "push.max_check_seconds",
    **{f"train.{name}": f"execution.{name}" for name in ExecutionConfig.model_fields},
}
# Of a row: most turns are shorter, and what does not fit is left out.
_CONVERSATION_TOKENS = 512
# Parts of the location of an error that name a key, where they are not section and key.
_DEPTHS = {"engine.resources": 4, "curate.quality": 3}
# Values that a message does not repeat: a password may be in them by mistake.
_SECRET = {"run.metadata_url"}


class ConfigError(TokenmillError):
    """A key or value of the configuration is wrong; the message names it, without passwords."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(re.sub(r"""(://[^\s/:@'"]*):[^\s'"]*@""", r"\1:...@", message), hint)


def preset_names() -> list[str]:
    """The presets that come with tokenmill."""
    return sorted(p.name[: -len(".toml")] for p in _PRESETS.iterdir() if p.name.endswith(".toml"))


def load_config(
    preset: str = "demo", config_path: str | None = None, overrides: Sequence[str] = ()
) -> Config:
    """Build the configuration of a run.

    Args:
        preset: Name of a preset, used unless `config_path` is given.
        config_path: A TOML file with the same sections as a preset.
        overrides: `section.key=value` strings, later ones win.

    Raises:
        ConfigError: A file, key or value is wrong.
    """
    values, origin = read_values(preset, config_path)
    if config_path is None:
        check_adapted(preset, values, overrides)
    take_base_model(values, config_path is not None, overrides)
    _keep_conversations(values, config_path is not None, overrides)
    return build_config(Config, values, origin, overrides)


def adapts(preset: str | None) -> bool:
    """Return whether a preset starts from a trained model, whose shape it takes."""
    return preset is not None and preset.startswith(_ADAPTING)


def check_adapted(preset: str, values: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Check that a preset that adapts a model is given one.

    Args:
        preset: Its name.
        values: Its sections.
        overrides: `section.key=value` strings.

    Raises:
        ConfigError: model.base_model is not set.
    """
    if adapts(preset) and _base_model(values, overrides) is None:
        raise ConfigError(
            f"preset {preset}: model.base_model is not set: expected the model to adapt, as the "
            "rates of this preset are too small for random weights.",
            "--set model.base_model=DIR",
        )


def _base_model(values: Mapping[str, Any], overrides: Sequence[str]) -> Any:
    """Return model.base_model as it was given; None where it was not."""
    options = dict(_parse_override(override) for override in overrides)
    section = values.get("model", {})
    given = section.get("base_model") if isinstance(section, dict) else None
    return options.get(("model", "base_model"), given)


def load_run_config(
    preset: str | None, config_path: str | None, overrides: Sequence[str], inputs: Sequence[str]
) -> tuple[Config, str]:
    """Build the configuration of `tokenmill run`, which chooses one for a text of the user's own.

    Args:
        preset: Name of a preset; None for the demo, or for what fits the input's size.
        config_path: A TOML file, used instead.
        overrides: `section.key=value` strings, later ones win.
        inputs: Paths of the command line, which win over corpus.input.

    Returns:
        The configuration, and a sentence that says what was chosen; empty if nothing was.

    Raises:
        TokenmillError: A file, key or value is wrong, or an input is not there.
    """
    of_corpus = [override for override in overrides if override.strip().startswith("corpus.")]
    corpus = build_config(Config, {}, "", of_corpus).corpus
    paths = inputs or corpus.input
    if preset is not None or config_path is not None or not paths:
        return load_config(preset or "demo", config_path, overrides), ""
    from pipeline.own_text import ORIGIN, own_text_values

    values, chosen = own_text_values(paths, corpus.span)
    if take_base_model(values, False, overrides):
        chosen += "; the shape and the tokenizer are those of model.base_model"
    if _keep_conversations(values, False, overrides):
        model = values.setdefault("model", {})
        model["sequence_length"] = max(model.get("sequence_length", 0), _CONVERSATION_TOKENS)
        if not any(override.strip().startswith("model.sequence_length") for override in overrides):
            chosen += f"; rows have {model['sequence_length']} tokens, as conversations are not cut"
    return build_config(Config, values, ORIGIN, overrides), chosen


def with_places(config: _Config, output_dir: str | None, inputs: Sequence[str]) -> _Config:
    """Return a configuration with the command line's places, as far as there are any.

    Args:
        config: As it was loaded.
        output_dir: In place of run.output_dir.
        inputs: In place of corpus.input.
    """
    run = {"output_dir": output_dir} if output_dir else {}
    corpus = {"input": tuple(inputs)} if inputs else {}
    return config.model_copy(
        update={
            "run": config.run.model_copy(update=run),
            "corpus": config.corpus.model_copy(update=corpus),
        }
    )


def _keep_conversations(values: dict[str, Any], is_users: bool, overrides: Sequence[str]) -> bool:
    """Keep conversations as they are, whatever rules a preset has for texts.

    Returns:
        Whether the corpus holds conversations.
    """
    options = dict(_parse_override(override) for override in overrides)
    corpus, curate = values.get("corpus", {}), values.setdefault("curate", {})
    if not isinstance(corpus, dict) or not isinstance(curate, dict):
        return False  # which is reported with all else
    keys = ("messages_field", "prompt_field")
    if not any(corpus.get(key) or options.get(("corpus", key)) for key in keys):
        return False
    if not is_users or "rules" not in curate:
        curate["rules"] = "none"
    return True


def take_base_model(values: dict[str, Any], is_users: bool, overrides: Sequence[str]) -> bool:
    """Put a base model's shape and tokenizer where the user's file and options say nothing.

    Args:
        values: The sections, which are changed.
        is_users: Whether they are of the user's file, whose keys count as said.
        overrides: `section.key=value` strings.

    Returns:
        Whether there is a base model that can be read.

    Raises:
        ConfigError: An override is no `section.key=value`.
    """
    options = dict(_parse_override(override) for override in overrides)
    sections = {name: section for name, section in values.items() if isinstance(section, dict)}
    said = set(options)
    if is_users:
        said |= {(name, key) for name, section in sections.items() for key in section}
    directory = _base_model(values, overrides)
    taken = base_model_values(directory) if isinstance(directory, str) else {}
    of_base = bool(taken)
    own_path = options.get(("tokenizer", "path"), sections.get("tokenizer", {}).get("path"))
    path = own_path or taken.get(("tokenizer", "path"))
    if isinstance(path, str):
        # An embedding may have more rows than the tokenizer has tokens: the base model's count.
        taken = tokenizer_values(path) | taken
    for (name, key), value in taken.items():
        if (name, key) not in said and isinstance(values.setdefault(name, {}), dict):
            values[name][key] = value
    return of_base


def read_values(preset: str, config_path: str | None) -> tuple[dict[str, Any], str]:
    """Read the sections of a file, or else of a preset, and say in words where they are from.

    Raises:
        ConfigError: There is no such preset or file, or it is no TOML.
    """
    if config_path is not None:
        return _read_toml(config_path), config_path
    if preset not in preset_names():
        raise ConfigError(
            f"there is no preset {preset!r}{did_you_mean(preset, preset_names())}.",
            f"Presets: {', '.join(preset_names())}.",
        )
    values = tomli.loads((_PRESETS / f"{preset}.toml").read_text("utf-8"))
    return values, f"preset {preset}"


def build_config(
    kind: type[_Config], values: dict[str, Any], origin: str, overrides: Sequence[str]
) -> _Config:
    """Validate sections with overrides on top.

    Args:
        kind: Config, or what adds keys to it.
        values: The sections; changed by the overrides.
        origin: Where they are from, for messages.
        overrides: `section.key=value` strings, later ones win.

    Raises:
        ConfigError: A key or value is wrong.
    """
    origins: dict[tuple[str, ...], str] = {}
    for override in overrides:
        path, value = _parse_override(override)
        _assign(values, path, value, override)
        origins[path] = f"--set {override}"
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, kind, origin, origins)) from None


def dump_config(config: Config) -> str:
    """The whole resolved configuration as TOML (keys without a value are left out)."""
    return tomli_w.dumps(config.model_dump(mode="json", by_alias=True, exclude_none=True))


def _read_toml(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as source:
            return tomli.load(source)
    except tomli.TOMLDecodeError as error:
        raise ConfigError(
            f"{path} is not valid TOML: {error}.",
            'Mend that place; a section is [name], a key is key = value, a text is in "quotes".',
        ) from None
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ConfigError(
            f"cannot read the config {path}: {reason}.",
            "--config takes a file that is there; paths are from the current directory.",
        ) from None


def _parse_override(override: str) -> tuple[tuple[str, ...], Any]:
    key, sign, text = override.partition("=")
    path = tuple(key.strip().split("."))
    if not sign or len(path) < 2 or not all(path):
        raise ConfigError(f"--set {override}: expected section.key=value.")
    try:
        value = tomli.loads(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        value = text.strip()  # a bare word is a string, as on any command line
    return path, value


def _assign(values: dict[str, Any], path: tuple[str, ...], value: Any, override: str) -> None:
    section = values
    for depth, name in enumerate(path[:-1], start=1):
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise ConfigError(
                f"--set {override}: {'.'.join(path[:depth])} is not a section.",
                "Write section.key=value; docs/interface.txt lists all keys.",
            )
    section[path[-1]] = value


def _explain(
    error: ValidationError,
    kind: type[Config],
    origin: str,
    origins: Mapping[tuple[str, ...], str],
) -> str:
    lines: dict[str, None] = {}  # ordered, each line once
    for item in error.errors():
        # A union adds its branches to the location: section and key are what the user typed.
        # A table of tables (engine.resources) is as deep as it says.
        depth = _DEPTHS.get(".".join(map(str, item["loc"][:2])), 2)
        path = tuple(str(part) for part in item["loc"][:depth])
        name = ".".join(path)
        named = path
        if len(path) < 2:  # a check over several keys names one of them first
            found = re.match(r"(\w+)\.(\w+)\b", str(item["msg"]).removeprefix("Value error, "))
            named = found.groups() if found else path
        below = [o for key, o in origins.items() if named and key[: len(named)] == named]
        where = below[-1] if below else origin
        if name in _SECRET:
            lines[f"{name}: {_sentence(item)} ({where.partition('=')[0]})"] = None
            continue
        if name in _MOVED:
            line = f"{name} is called {_MOVED[name]} now"
        elif item["type"] == "extra_forbidden":
            siblings = _keys_of(kind, path[:-1])
            what = "section" if len(path) == 1 else "key"
            line = f"unknown {what} {name}{did_you_mean(path[-1], siblings)}"
            line += f"; allowed here: {', '.join(siblings)}"
        elif not path or named != path:
            line = str(item["msg"]).removeprefix("Value error, ").rstrip(".")
        else:
            allowed = _literals_of(kind, path)
            line = f"{name} = {_shown(item['input'])}: {_sentence(item)}"
            if allowed and item["type"] == "literal_error":
                line = f"{name} = {_shown(item['input'])}: allowed are {', '.join(allowed)}"
                line += did_you_mean(str(item["input"]), allowed)
            elif allowed:
                line += f', or "{allowed[0]}"'
            if any(line.startswith(f"{name} =") for line in lines):
                continue
        lines[f"{line} ({where})"] = None
    return "the configuration is wrong: " + "; ".join(lines) + "."


def _sentence(item: Mapping[str, Any]) -> str:
    if item["type"] in ("tuple_type", "list_type"):  # pydantic names Python's types, not TOML's
        given = item["input"]
        example = f"; write [{json.dumps(given)}]" if isinstance(given, str) else ""
        return f"expected a list{example}"
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return f"{message[:1].lower()}{message[1:]}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _section_models(kind: type[Config]) -> dict[str, type[BaseModel]]:
    models: dict[str, type[BaseModel]] = {}
    for name, field in kind.model_fields.items():
        annotation = field.annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        models[field.alias or name] = annotation
    return models


def _keys_of(kind: type[Config], path: tuple[str, ...]) -> list[str]:
    models = _section_models(kind)
    if path[:2] == ("engine", "resources"):
        return list(StepResources.model_fields)
    if path[:2] == ("curate", "quality"):
        return list(QualityConfig.model_fields)
    return list(models[path[0]].model_fields) if path else list(models)


def _literals_of(kind: type[Config], path: tuple[str, ...]) -> list[str]:
    model = _section_models(kind).get(path[0])
    if model is None or len(path) < 2 or path[1] not in model.model_fields:
        return []
    annotation = model.model_fields[path[1]].annotation
    found: list[str] = []
    pending = [annotation]
    while pending:
        current = pending.pop()
        for argument in get_args(current):
            if isinstance(argument, str):
                found.append(argument)
            else:
                pending.append(argument)
    return found
