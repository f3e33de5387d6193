"""`tokenmill gateway`: the OpenAI-compatible API in front of a TensorFlow Serving."""

import asyncio
import contextlib
from typing import Any

import click

from pipeline.cli.errors import user_errors
from pipeline.cli.options import gateway_options, server_options
from serving.server.config import ServerConfig

_SCHEME = "grpc://"


@click.command()
@click.argument("model_dir")
@click.option(
    "--backend",
    default="grpc://127.0.0.1:8500",
    show_default=True,
    help="The server: TensorFlow Serving's gRPC API.",
)
@click.option("--name", default="default", show_default=True, help="The model's name there.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, help="0 takes a free one.")
@server_options
@gateway_options
def gateway(model_dir: str, backend: str, name: str, port: int, **options: Any) -> None:
    """Serve OpenAI's API in front of a TensorFlow Serving that has the models of MODEL_DIR.

    MODEL_DIR is the base directory that the server loads from, or a copy with each version's
    saved_model.pb and assets.extra. A gateway keeps no state; start as many as you need.
    """
    if not backend.startswith(_SCHEME):
        raise click.UsageError(f"--backend must be {_SCHEME}HOST:PORT")
    with user_errors():
        from serving.app import log_as_json
        from serving.gateway.app import serve_gateway

        log_as_json()
        config = ServerConfig(model_dir, name, rest_port=port, openai=True, **options)

        def started(ports: Any) -> None:
            with contextlib.suppress(OSError):  # a full disk or a closed pipe ends no server
                click.echo(f"OpenAI: http://{config.host}:{ports.rest}/v1")

        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve_gateway(backend.removeprefix(_SCHEME), config, started))
