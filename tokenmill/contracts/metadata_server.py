"""Contract metadata_server.json: where the metadata of an output directory's runs is.

A run with `run.metadata_url` leaves it in its output directory, since a server holds the runs of
other directories, too. Commands that look at the runs of the directory read it.
"""

import os

from tokenmill.contracts.base import Document, key, read_document, write_document

METADATA_SERVER_NAME = "metadata_server.json"


class MetadataServer(Document):
    """A server of ML Metadata, and which of its pipelines belong to an output directory."""

    url: str = key("Address of the server; it holds no password.")
    pipelines: list[str] = key("Names of the pipelines that ran in this directory, sorted.")
    directory_id: str = key("Marks the runs of this directory on the server, wherever it is moved.")
    output_dir: str = key("Where the directory was at its last run; absolute.")


def read_metadata_server(run_directory: str) -> MetadataServer | None:
    """Read the note of an output directory; None if its metadata is a file of its own."""
    path = os.path.join(run_directory, METADATA_SERVER_NAME)
    return read_document(path, MetadataServer) if os.path.exists(path) else None


def write_metadata_server(run_directory: str, server: MetadataServer) -> None:
    """Write the note into an output directory."""
    write_document(os.path.join(run_directory, METADATA_SERVER_NAME), server)
