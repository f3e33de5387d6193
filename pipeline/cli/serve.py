"""`tokenmill generate|score|classify|serve|loadtest|drift|rollout|export`: use a pushed model."""

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click

from pipeline.cli.errors import user_errors, without_chatter
from pipeline.cli.options import (
    combine,
    config_options,
    gateway_options,
    metadata_url_option,
    run_option,
    server_options,
)
from pipeline.runners.logs import send_output_to_log
from serving.client import Client
from serving.rollout import end_rollout, start_rollout, write_rollout
from serving.saved_model import (
    call,
    context_length,
    limit_threads,
    list_versions,
    load,
    newest_version,
)
from serving.server.config import ServerConfig
from tokenmill.contracts.chat import find_chat_format
from tokenmill.errors import TokenmillError
from tokenmill.visible import visible_lines

_DEFAULT_DIRECTORY = "runs/demo/serving_model"


def add_serving_commands(cli: click.Group) -> None:
    """Add the commands; those that look for a run's model take the configuration's options."""
    for function, name in ((_generate, "generate"), (_score, "score"), (_classify, "classify")):
        cli.add_command(click.command(name)(config_options(function)))
    for command in (serve, loadtest, drift, rollout, export):
        cli.add_command(command)


_remote_options = combine(
    click.option(
        "--model", "model_path", metavar="DIR", help="A SavedModel, or its base directory."
    ),
    click.option(
        "--server",
        metavar="ADDRESS",
        help="Ask a server: http://host:port for REST, host:port for gRPC.",
    ),
    click.option("--name", default="default", help="The model's name, with --server."),
    click.option("--label", help="Version label, with --server."),
    click.option("--timeout", default=30.0, show_default=True, help="Seconds, with --server."),
    click.option(
        "--api-key", envvar="TOKENMILL_API_KEY", help="With --server.  [env: TOKENMILL_API_KEY]"
    ),
    click.option("--debug", is_flag=True, help="Show the stack trace of an error."),
)


@click.argument("prompt")
@_remote_options
@click.option("--max-new-tokens", type=click.IntRange(1), help="[default: 64, or half the context]")
@click.option("--temperature", type=click.FloatRange(0), default=0.7, show_default=True)
@click.option("--top-k", type=click.IntRange(0), default=0, help="0 takes all tokens.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0)
@click.option("--seed", type=int, default=0, show_default=True)
def _generate(
    prompt: str,
    max_new_tokens: int | None,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    **where: Any,
) -> None:
    """Continue PROMPT with the pushed model, or by a server.

    A model that was trained on conversations answers PROMPT, as what a user says.
    """
    options = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "truncate_prompt": True,
    }
    answer, out = _ask("generate", prompt, options, **where)
    shown = visible_lines(prompt)
    bold_prompt = click.style(shown, bold=True) if out.isatty() else shown
    between = "\n" if answer.get("is_answer") else ""
    click.echo(bold_prompt + between + visible_lines(answer["text"]), file=out)
    tokens = f"[{answer['prompt_tokens']} + {answer['completion_tokens']} tokens]"
    if answer["truncated_tokens"]:
        tokens = f"{tokens[:-1]}; the prompt's first {answer['truncated_tokens']} left out]"
    click.echo(click.style(tokens, dim=True) if out.isatty() else tokens, file=out)


@click.argument("text")
@_remote_options
def _score(text: str, **where: Any) -> None:
    """Print log-likelihood and bits per byte of TEXT, as JSON."""
    answer, out = _ask("score", text, {}, **where)
    click.echo(json.dumps(answer, sort_keys=True), file=out)


@click.argument("text")
@_remote_options
def _classify(text: str, **where: Any) -> None:
    """Print the class of TEXT and the probability of each class, as JSON."""
    answer, out = _ask("classify", text, {}, **where)
    click.echo(json.dumps(answer, sort_keys=True), file=out)


def _ask(
    signature: str,
    text: str,
    options: dict[str, Any],
    preset: str,
    config_path: str | None,
    overrides: Sequence[str],
    model_path: str | None,
    server: str | None,
    name: str,
    label: str | None,
    timeout: float,
    api_key: str | None,
    debug: bool,
) -> tuple[dict[str, Any], TextIO]:
    """Ask a server, or the model in this process; return the answer and where to print it."""
    if server is not None:
        if options:
            options["max_new_tokens"] = options["max_new_tokens"] or 64
        with user_errors(), Client(server, name, timeout, label=label, api_key=api_key) as client:
            return client.predict(signature, {"text": [text], **options})[0], sys.stdout
    with user_errors():
        if model_path is None:
            from pipeline.loader import load_config

            config = load_config(preset, config_path, overrides)
            model_path = config.push.directory or os.path.join(config.output_dir, "serving_model")
        newest_version(model_path)  # before the slow import
    out: TextIO = sys.stdout if debug else send_output_to_log(os.devnull).out
    try:
        with without_chatter() if debug else contextlib.nullcontext():
            if options and options["max_new_tokens"] is None:
                options["max_new_tokens"] = min(64, context_length(model_path) // 2)
            if signature == "generate":
                signature, text = _of_conversation(newest_version(model_path), text)
            answer = call(load(model_path), signature, text, **options)
            return (answer | {"is_answer": True} if signature == "chat" else answer), out
    except Exception as error:  # a damaged model fails in any way; standard error is closed by now
        if debug:
            raise
        lines = [line for line in str(error).strip().splitlines() if "node" not in line]
        asserted = [line for line in lines if line.startswith("assertion failed")]
        reason = visible_lines((asserted or lines or [type(error).__name__])[0])
        click.echo(f"error: cannot use the model in {model_path}: {reason}", file=out)
        sys.exit(1)


def _of_conversation(version: str, text: str) -> tuple[str, str]:
    """Return the signature and the input that continue a text: of a model of conversations, chat.

    Args:
        version: Directory of the SavedModel.
        text: What the user says.
    """
    chat_format = find_chat_format(os.path.join(version, "assets.extra"))
    if chat_format is None:
        return "generate", text
    from tokenmill.text.chat import Chat  # Jinja, for a few models only

    return "chat", Chat(chat_format).prompt([{"role": "user", "content": text}])


@click.command()
@click.argument("model_dir", default=_DEFAULT_DIRECTORY)
@click.option("--name", default="default", show_default=True, help="The model's name in URLs.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--rest-port", default=8501, show_default=True, help="0 takes a free one.")
@click.option("--grpc-port", default=8500, show_default=True, help="0 takes a free one.")
@click.option("--max-batch-size", type=click.IntRange(1), default=16, show_default=True)
@click.option("--batch-timeout-micros", type=click.IntRange(0), default=0, show_default=True)
@click.option("--num-batch-threads", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--intra-op-threads",
    type=click.IntRange(0),
    show_default="1 for small models",
    help="Threads of one operation; 0 takes all cores.",
)
@server_options
@click.option(
    "--openai", is_flag=True, help="Serve the OpenAI-compatible API, too, on REST's port."
)
@gateway_options
def serve(model_dir: str, name: str, intra_op_threads: int | None, **options: Any) -> None:
    """Serve MODEL_DIR by TensorFlow Serving's REST and gRPC API, or OpenAI's, too.

    For laptops and tests; production is TensorFlow Serving (docs/serving.md).
    """
    with user_errors():
        if not list_versions(model_dir):
            raise TokenmillError(
                f"no pushed model in {model_dir}.",
                "Run `tokenmill run` first, or name the base directory of numbered versions.",
            )
        from serving.app import log_as_json, run_server

        log_as_json()
        limit_threads(model_dir, intra_op_threads)
        config = ServerConfig(model_dir, name, **options)

        def started(ports: Any) -> None:
            with contextlib.suppress(OSError):  # a full disk or a closed pipe ends no server
                click.echo(f"REST: http://{config.host}:{ports.rest}/v1/models/{name}")
                click.echo(f"gRPC: {config.host}:{ports.grpc}")
                if config.openai:
                    click.echo(f"OpenAI: http://{config.host}:{ports.rest}/v1")

        run_server(config, started)


@click.command()
@click.argument("url", default="http://127.0.0.1:8501")
@click.option("--name", default="default", show_default=True, help="The model's name.")
@click.option("--label", help="Version label.")
@click.option("--signature", default="score", show_default=True)
@click.option("--text", "texts", multiple=True, help="Sent in turn.  [default: about 64 tokens]")
@click.option("--option", "options", multiple=True, metavar="KEY=JSON", help="max_new_tokens=16")
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=20.0, show_default=True)
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--users", type=click.IntRange(0), default=0, help="Made-up user keys.")
@click.option("--p50-ms", type=float, help="Fail if the median is above.")
@click.option("--p99-ms", type=float, help="Fail if the 99th percentile is above.")
@click.option("--max-error-rate", type=float, default=0.0, show_default=True)
@click.option("--max-shed-rate", type=float, help="Fail if more is shed with 429.")
@click.option("--output", metavar="DIR", help="Write loadtest.json and loadtest.png.")
def loadtest(
    url: str,
    name: str,
    label: str | None,
    signature: str,
    texts: tuple[str, ...],
    options: tuple[str, ...],
    rate: float,
    seconds: float,
    seed: int,
    users: int,
    output: str | None,
    **objectives: float | None,
) -> None:
    """Put open-loop load on a REST server at URL; exit code 1 if an objective is missed."""
    with user_errors():
        from serving.loadtest import (
            DEFAULT_TEXT,
            LoadConfig,
            Objectives,
            run_load,
            summarize,
            write_report,
        )

        try:
            pairs = dict(option.split("=", 1) for option in options)
            parsed = {key: json.loads(value) for key, value in pairs.items()}
        except ValueError:
            raise click.UsageError("--option must be KEY=JSON") from None
        config = LoadConfig(
            url.rstrip("/"), name, signature, texts or (DEFAULT_TEXT,), parsed, rate, seconds,
            seed, label=label, users=users,
        )  # fmt: skip
        outcomes = run_load(config)
        summary = summarize(outcomes, Objectives(**objectives))
        if output:
            write_report(output, config, summary, outcomes)
    click.echo(json.dumps(summary.to_json(), indent=2))
    sys.exit(1 if summary.missed else 0)


@click.command()
@click.argument("request_log")
@click.option(
    "--statistics",
    default="runs/demo",
    show_default=True,
    metavar="DIR",
    help="A run, or a StatisticsGen artifact.",
)
@click.option("--signature", help="Only requests for this one.  [default: all]")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Jensen-Shannon divergence that is still no drift.",
)
def drift(request_log: str, statistics: str, signature: str | None, threshold: float) -> None:
    """Compare the texts' sizes in REQUEST_LOG with the training documents' (TFDV).

    Exit code 1 if they drifted.
    """
    with user_errors():
        from serving.drift import find_drift

        report = find_drift(request_log, statistics, signature, threshold)
    click.echo(json.dumps(report.to_json(), indent=2))
    sys.exit(1 if report.drifted else 0)


@click.group()
def rollout() -> None:
    """Try a version on a share of the users: start, watch, promote, rollback.

    \b
    tokenmill rollout start runs/demo/serving_model --canary 1795510859 --weight 0.1
    tokenmill rollout watch runs/demo/serving_model --request-log requests.jsonl --p99-ms 200
    tokenmill rollout promote runs/demo/serving_model
    """  # noqa: D301  (click wants the backspace)


_BASE = click.argument("model_dir")
_NAME = click.option("--name", default="default", help="The model's name in models.config.")


@rollout.command()
@_BASE
@_NAME
@click.option("--canary", type=int, help="The version to try.  [default: the newest]")
@click.option("--stable", type=int, help="The version for the others.")
@click.option("--weight", type=click.FloatRange(0, 1, min_open=True), default=0.1)
def start(model_dir: str, name: str, canary: int | None, stable: int | None, weight: float) -> None:
    """Give the canary to a share of the users, by a hash of their key."""
    with user_errors():
        versions = list_versions(model_dir)
        newest = max(versions, default=0)
        begun = start_rollout(model_dir, versions, canary or newest, weight, stable)
        write_rollout(model_dir, begun, name)
        click.echo(f"stable {begun.stable}, canary {begun.canary} for {weight:.1%} of the users")


def _end(model_dir: str, name: str, promote: bool, reason: str) -> None:
    with user_errors():
        ended = end_rollout(model_dir, promote, reason)
        write_rollout(model_dir, ended, name)
        click.echo(f"{ended.status.replace('_', ' ')}: stable {ended.stable}")


@rollout.command()
@_BASE
@_NAME
def promote(model_dir: str, name: str) -> None:
    """Make the canary stable."""
    _end(model_dir, name, True, "by hand")


@rollout.command()
@_BASE
@_NAME
def rollback(model_dir: str, name: str) -> None:
    """Give all users the stable version again; after promote, the one that was stable before."""
    _end(model_dir, name, False, "by hand")


@rollout.command()
@_BASE
@_NAME
@click.option("--request-log", required=True, metavar="FILE", help="Of `tokenmill serve`.")
@click.option("--feedback", metavar="FILE", help='JSON lines {"user": ..., "value": number}.')
@click.option("--p99-ms", type=float, help="Roll back if the canary's is above.")
@click.option("--max-error-rate", type=float, help="Roll back if the canary's is above.")
@click.option("--seconds", type=float, default=0.0, help="Watch so long; 0 looks once.")
def watch(model_dir: str, name: str, seconds: float, **options: Any) -> None:
    """Compare the arms; roll back by itself if an objective is missed.

    Exit code 1 if it did, 2 if the canary had too few requests to be judged.
    """
    with user_errors():
        from serving.watch import watch_rollout

        report = watch_rollout(model_dir, name, seconds, **options)
    click.echo(json.dumps(report.to_json(), indent=2))
    sys.exit(1 if report.rolled_back else 0 if report.judged else 2)


@click.group()
def export() -> None:
    """Write a pushed model in another form."""


@export.command()
@click.argument("model")
@click.argument("directory")
@click.option("--check/--no-check", default=True, help="Compare with the SavedModel.")
def tflite(model: str, directory: str, check: bool) -> None:
    """Write MODEL's ids-model as .tflite files to DIRECTORY, the tokenizer beside them.

    float16 weights and dynamic-range int8, each with its size, latency and difference.
    """
    with user_errors():
        from serving.tflite import export_tflite

        files = export_tflite(model, directory, check)
    click.echo(json.dumps({name: file.to_json() for name, file in files.items()}, indent=2))


@export.command()
@click.argument("model")
@click.argument("directory")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Of the weights.",
)
@click.option("--check/--no-check", default=True, help="Compare with the pushed model.")
@click.option("--adapter", is_flag=True, help="Only the adapters of LoRA, for PEFT.")
@click.option(
    "--base-model",
    metavar="NAME",
    help="With --adapter: what PEFT takes the other weights from.  [default: model.base_model]",
)
@run_option
@metadata_url_option
def hf(
    model: str,
    directory: str,
    dtype: str,
    check: bool,
    adapter: bool,
    base_model: str | None,
    run_directory: str | None,
    metadata_url: str | None,
) -> None:
    """Write the pushed MODEL to DIRECTORY for Hugging Face's transformers.

    config.json, model.safetensors, generation_config.json, tokenizer.json, tokenizer_config.json
    and a model card (README.md) with the run's tokens, quality and cost. With --adapter only
    adapter_config.json and adapter_model.safetensors, the tokenizer's files and the card.
    """
    with user_errors():
        from pipeline.report.hugging_face import export_adapter_with_card, export_with_card

        version = newest_version(model)
        if adapter:
            export_adapter_with_card(version, directory, base_model, run_directory, metadata_url)
        elif base_model is not None:
            raise click.UsageError("--base-model is of --adapter only")
        else:
            export_with_card(version, directory, dtype, check, run_directory, metadata_url)
