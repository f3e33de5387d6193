"""The address of ML Metadata's server, checked without importing ML Metadata.

The password is in the environment, never in the address: that is recorded with the run.
"""

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from tokenmill.errors import TokenmillError

PASSWORD_VARIABLE = "TOKENMILL_METADATA_PASSWORD"

_PORTS = {"mysql": 3306, "postgresql": 5432}
_FORM = "mysql://user@host:port/database or postgresql://user@host:port/database"


class ServerUrl(NamedTuple):
    """Where a server is."""

    scheme: str
    user: str
    host: str
    port: int
    database: str


def parse_server_url(url: str) -> ServerUrl:
    """Take an address apart.

    Raises:
        TokenmillError: It is not of the form that is expected, or holds a password. The message
            does not repeat it.
    """
    # Before it is taken apart: a password may hold what ends a host, such as a slash.
    if ":" in url.partition("://")[2].rpartition("@")[0] or "?" in url:
        raise TokenmillError(
            "run.metadata_url holds a password or options, which would be recorded with every run.",
            f"Give {_FORM}, and the password by {PASSWORD_VARIABLE} in the environment.",
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
    except (KeyError, ValueError):
        host, port = None, 0
    database = url.partition("://")[2].partition("/")[2].strip("/")
    if not (host and parts.username and database) or "/" in database or parts.fragment:
        raise TokenmillError(f"run.metadata_url: expected {_FORM}.")
    return ServerUrl(parts.scheme, unquote(parts.username), host, port, database)
