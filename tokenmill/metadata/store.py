"""Connection to ML Metadata: a SQLite file, or a MySQL or PostgreSQL server for several users."""

import contextlib
import logging
import os
import random
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ml_metadata as mlmd
from google.protobuf import text_encoding
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from ml_metadata.proto import metadata_store_pb2, metadata_store_service_pb2

from tokenmill.errors import TokenmillError
from tokenmill.metadata.server_url import PASSWORD_VARIABLE, parse_server_url
from tokenmill.preemption import StoppedError

_ANSWER_SECONDS = 10.0
_ATTEMPTS = 10
# What a server says that will say the same a second later. Anything else may come of another client
# that makes the tables at the same time, for which each server has many words.
_FINAL = (
    "Access denied",
    "MySQL database was not initialized",  # what it says of a wrong password
    "Unknown database",
    "command denied",
    "authentication failed",
    "permission denied",
    'database "',
    'role "',
    "no pg_hba.conf entry",
)
# Private-use characters that stand for a backslash and for themselves.
_ESCAPED = (("\uf05c", "\uf05ce"), ("\\", "\uf05cb"))


def connection_config(location: str) -> metadata_store_pb2.ConnectionConfig:
    """Return how to connect to ML Metadata.

    Args:
        location: The path of a SQLite file, or a server's URL.

    Raises:
        TokenmillError: The URL is not of the form that is expected, or holds a password.
    """
    config = metadata_store_pb2.ConnectionConfig()
    if "://" not in location:
        config.sqlite.filename_uri = location
        config.sqlite.connection_mode = (
            metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        )
        return config
    url = parse_server_url(location)
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if password:
        _redact(password)
    if url.scheme == "mysql":
        config.mysql.host, config.mysql.port = url.host, url.port
        config.mysql.database, config.mysql.user = url.database, url.user
        config.mysql.password = password
    else:
        config.postgresql.host, config.postgresql.port = url.host, str(url.port)
        config.postgresql.dbname, config.postgresql.user = url.database, url.user
        config.postgresql.password = password
        # Of libpq, which else waits as long as the kernel, two minutes for each of many tries.
        os.environ.setdefault("PGCONNECT_TIMEOUT", f"{_ANSWER_SECONDS:.0f}")
        _keep_backslashes_from_postgresql()
    return config


def open_store(location: str) -> mlmd.MetadataStore:
    """Open the metadata store in a SQLite file or on a server, where it makes the tables.

    Raises:
        TokenmillError: The file is damaged, or the server does not answer, or refuses.
    """
    config = connection_config(location)
    if "://" not in location:
        try:
            return mlmd.MetadataStore(config)
        except (RuntimeError, mlmd.errors.StatusError) as error:
            raise TokenmillError(
                f"{location} is damaged, or no ML Metadata of this version: {error}",
                "Restore it, or take another --output-dir.",
            ) from None
    _check_answers(location)
    for attempt in range(_ATTEMPTS):
        native: list[str] = []
        try:
            with _native_errors(native):
                return mlmd.MetadataStore(config)
        except (RuntimeError, mlmd.errors.StatusError) as error:
            why = (native or str(error).splitlines())[-1][:300]
            if attempt + 1 == _ATTEMPTS or any(words in why for words in _FINAL):
                break
            time.sleep(random.uniform(0.2, 2.0))  # the other one is done by then
    raise TokenmillError(
        f"ML Metadata's server refuses {location}: {why}",
        f"Are user and database right, and is the password in {PASSWORD_VARIABLE}?",
    )


@contextlib.contextmanager
def answering(location: str | None) -> Iterator[None]:
    """Say of what fails within the body that the server is gone, if it answers no more.

    ML Metadata says only that a pointer is NULL.

    Args:
        location: A server's URL; None for no server.

    Raises:
        StoppedError: The server does not answer.
    """
    try:
        yield
    except Exception as error:
        if location is None or isinstance(error.__cause__ or error, StoppedError):
            raise
        try:
            _check_answers(location)
        except TokenmillError as silent:
            raise StoppedError(
                silent.message,
                "Once it answers, the same command continues after the last step that it recorded.",
            ) from error
        raise


def _check_answers(location: str) -> None:
    """Raise for a server that cannot be reached: ML Metadata would not say why."""
    url = parse_server_url(location)
    try:
        socket.create_connection((url.host, url.port), _ANSWER_SECONDS).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise TokenmillError(
            f"ML Metadata's server does not answer at {location}: {why} "
            f"(host {url.host}, port {url.port}).",
            "Is it running, and can it be reached from here?",
        ) from None


@contextlib.contextmanager
def _native_errors(found: list[str]) -> Iterator[None]:
    """Collect what C++ logs as errors: why a server refuses is only there."""
    with tempfile.TemporaryFile() as log:
        saved = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            log.seek(0)
            lines = log.read().decode(errors="replace").splitlines()
            found += [line.partition("] ")[2] for line in lines if re.match(r"E\d{4} ", line)]


def _keep_backslashes_from_postgresql() -> None:
    """Write other characters for backslashes on PostgreSQL, and read them back.

    ML Metadata quotes a text with a backslash twice there (PQescapeLiteral gives E'..', which it
    takes for '..'), and any JSON with a quote in a string is such a text.
    """
    method = mlmd.MetadataStore._pywrap_cc_call
    if getattr(method, "keeps_backslashes", False):
        return

    def call(self: Any, function: Any, request: Message, response: Message) -> None:
        if not self._config.HasField("postgresql"):
            return method(self, function, request, response)
        changed = type(request)()
        changed.CopyFrom(request)
        _change_texts(changed, _escape)
        method(self, function, changed, response)
        _change_texts(response, _unescape)
        if isinstance(request, metadata_store_service_pb2.GetArtifactsByIDRequest):
            _put_in_order(response.artifacts, request.artifact_ids)

    call.keeps_backslashes = True  # type: ignore[attr-defined]
    setattr(mlmd.MetadataStore, method.__name__, call)


def _put_in_order(artifacts: Any, ids: Iterable[int]) -> None:
    """Sort artifacts as they were asked for, which TFX's cache takes for granted.

    PostgreSQL returns rows that were changed behind the others.
    """
    place = {number: i for i, number in enumerate(ids)}
    ordered = sorted(artifacts, key=lambda artifact: place[artifact.id])
    del artifacts[:]
    artifacts.extend(ordered)


def _escape(text: str) -> str:
    for plain, escaped in _ESCAPED:
        text = text.replace(plain, escaped)
    return text


def _unescape(text: str) -> str:
    for plain, escaped in reversed(_ESCAPED):
        text = text.replace(escaped, plain)
    return text


def _change_texts(message: Message, change: Callable[[str], str]) -> None:
    """Change every text in a message; the keys of maps are names without a backslash."""
    for field, value in message.ListFields():
        repeated = field.label == FieldDescriptor.LABEL_REPEATED
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                if field.message_type.fields_by_name["value"].message_type is None:
                    continue
                value = value.values()
            for part in value if repeated else (value,):
                _change_texts(part, change)
        elif field.type == FieldDescriptor.TYPE_STRING:
            if repeated:
                value[:] = [change(text) for text in value]
            else:
                setattr(message, field.name, change(value))


class _Redacted(logging.Filter):
    """Log filter that takes a secret out of records: TFX logs the connection that it uses."""

    def __init__(self, secret: str):
        super().__init__()
        # As it is, and as protobuf's text format writes it.
        self.forms = {secret, text_encoding.CEscape(secret.encode(), as_utf8=True),
                      text_encoding.CEscape(secret.encode(), as_utf8=False)}  # fmt: skip

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without the secret."""
        text = record.getMessage()
        if any(form in text for form in self.forms):
            for form in sorted(self.forms, key=len, reverse=True):
                text = text.replace(form, "<redacted>")
            record.msg, record.args = text, ()
        return True


def _redact(secret: str) -> None:
    logger = logging.getLogger("absl")  # TFX's
    if not any(isinstance(f, _Redacted) and secret in f.forms for f in logger.filters):
        logger.addFilter(_Redacted(secret))
