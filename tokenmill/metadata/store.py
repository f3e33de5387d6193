"""Connection to ML Metadata: a SQLite file, or a MySQL or PostgreSQL server for several users.

A server's password is in the environment, never in a configuration: that is recorded with the run.
"""

import logging
import os
from urllib.parse import unquote, urlsplit

import ml_metadata as mlmd
from google.protobuf import text_encoding
from ml_metadata.proto import metadata_store_pb2

from tokenmill.errors import TokenmillError

PASSWORD_VARIABLE = "TOKENMILL_METADATA_PASSWORD"

_PORTS = {"mysql": 3306, "postgresql": 5432}
_FORM = "mysql://user@host:port/database or postgresql://user@host:port/database"


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
    url = urlsplit(location)
    database = url.path.strip("/")
    if url.password is not None:
        raise TokenmillError(
            "run.metadata_url holds a password, which would be recorded with every run.",
            f"Take it out and set {PASSWORD_VARIABLE} in the environment.",
        )
    try:
        port = url.port or _PORTS[url.scheme]
    except (KeyError, ValueError):
        port = 0
    if not (port and url.username and url.hostname and database) or "/" in database:
        raise TokenmillError(f"run.metadata_url = {location!r}: expected {_FORM}.")
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if password:
        _redact(password)
    if url.scheme == "mysql":
        config.mysql.host, config.mysql.port = url.hostname, port
        config.mysql.database, config.mysql.user = database, unquote(url.username)
        config.mysql.password = password
    else:
        config.postgresql.host, config.postgresql.port = url.hostname, str(port)
        config.postgresql.dbname, config.postgresql.user = database, unquote(url.username)
        config.postgresql.password = password
    return config


def open_store(location: str) -> mlmd.MetadataStore:
    """Open the metadata store in a SQLite file or on a server.

    Raises:
        TokenmillError: The server does not answer, or refuses.
    """
    config = connection_config(location)
    try:
        return mlmd.MetadataStore(config)
    except (RuntimeError, mlmd.errors.StatusError) as error:
        if "://" not in location:
            raise
        why = str(error).splitlines()[0][:300]
        raise TokenmillError(
            f"ML Metadata's server does not answer at {location}: {why}",
            f"Is it running, and is its password in {PASSWORD_VARIABLE}?",
        ) from None


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
