"""A Cloud Storage emulator that Beam and TensorFlow take for Google's, on this machine.

Google's Python client, which Beam uses, goes where STORAGE_EMULATOR_HOST says. TensorFlow's gs://
knows no such variable: it asks https://storage.googleapis.com and nothing else. But its libcurl
follows `https_proxy`, and CURL_CA_BUNDLE names the authorities that it trusts. So a proxy here ends
the TLS with a certificate of its own, and hands the requests to the emulator.
"""

import contextlib
import datetime
import http.server
import json
import pathlib
import socket
import socketserver
import ssl
import threading
import urllib.parse
from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from gcp_storage_emulator import server as emulator_server

_DROPPED = (b"content-length:", b"expect:")
HOSTS = ("storage.googleapis.com", "www.googleapis.com")


def _certificate(directory: pathlib.Path) -> pathlib.Path:
    """A self-signed certificate of Google's hosts, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOSTS[0])])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(h) for h in HOSTS]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "googleapis.pem"
    pem = serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
    return path


class _Proxy(socketserver.ThreadingTCPServer):
    """Answers CONNECT to Google's hosts, whichever it is, with the emulator."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext, emulator: tuple[str, int]):
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.context, self.emulator = context, emulator


class _Tunnel(socketserver.StreamRequestHandler):
    rbufsize = 0  # what follows the headers is the tunnel's

    def handle(self):
        method, target, version = self.rfile.readline().decode().split()
        headers = list(iter(self.rfile.readline, b"\r\n"))
        url = urllib.parse.urlsplit(target if "://" in target else f"//{target}")
        if url.hostname not in HOSTS:
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            return
        with contextlib.suppress(OSError), socket.create_connection(self.server.emulator) as plain:
            client = self.connection
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                client = self.server.context.wrap_socket(client, server_side=True)
            else:  # the emulator, which knows of no TLS, gives http:// as the place of an upload
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                # TensorFlow sends a length, too, where chunks count alone (RFC 9112, 6.3).
                kept = [h for h in headers if not h.lower().startswith(_DROPPED)]
                first = f"{method} {url.path}?{url.query} {version}\r\n".encode()
                plain.sendall(first + b"".join(kept) + b"\r\n")
            back = threading.Thread(target=_copy, args=(plain, client), daemon=True)
            back.start()
            _copy(client, plain)
            back.join()


def _read_data(handler, query, read=emulator_server._read_data):
    """The emulator takes an empty object, which is what a directory is, for no object at all."""
    data = read(handler, query)
    return b"" if data is None and query.get("uploadType") == ["media"] else data


class _MetadataServer(http.server.ThreadingHTTPServer):
    """Gives out access tokens as that of a machine in Google's cloud does."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _MetadataHandler)


class _MetadataHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        token = {"access_token": "of-a-test", "expires_in": 3600, "token_type": "Bearer"}
        answers = {"project-id": "p", "universe-domain": "googleapis.com"}
        body = answers.get(
            urllib.parse.urlsplit(self.path).path.rpartition("/")[2],
            json.dumps({**token, "email": "default", "scopes": []}),
        )
        self.send_response(200)
        self.send_header("Metadata-Flavor", "Google")
        kind = "application/json" if body.startswith("{") else "text/plain"
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def fake_gcs(directory: pathlib.Path, bucket: str) -> Iterator[dict[str, str]]:
    """Runs the emulator with an empty bucket; yields the environment that points to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    emulator_server._read_data = _read_data
    emulator = emulator_server.create_server(*address, in_memory=True, default_bucket=bucket)
    emulator.start()
    certificate = _certificate(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with _Proxy(context, address) as proxy, _MetadataServer() as metadata:
        for server in (proxy, metadata):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        metadata_host = f"127.0.0.1:{metadata.server_address[1]}"
        try:
            yield {
                "STORAGE_EMULATOR_HOST": f"http://{address[0]}:{address[1]}",
                "https_proxy": f"http://127.0.0.1:{proxy.server_address[1]}",
                "http_proxy": f"http://127.0.0.1:{proxy.server_address[1]}",
                "no_proxy": "127.0.0.1,localhost",
                "CURL_CA_BUNDLE": str(certificate),
                "GCE_METADATA_HOST": metadata_host,
                "GCE_METADATA_IP": metadata_host,
            }
        finally:
            proxy.shutdown()
            metadata.shutdown()
            emulator.stop()
