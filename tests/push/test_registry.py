"""Vertex AI's model registry: Google's own client, against an HTTP server on this machine.

The server speaks the REST form of the API as far as it is asked: unknown fields are refused, and
so are labels that Google Cloud would refuse. Vertex AI itself was not called.
"""

import http.server
import json
import re
import threading
import urllib.parse

import pytest
from complete_model import complete
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1
from hypothesis import given
from hypothesis import strategies as st
from tfx.types import standard_artifacts

from components.artifacts import CostReport, Ledger, RegisteredModel
from components.push import registry
from components.push.component import VertexRegistrarExecutor
from components.push.labels import MAX_LABELS, label_key, label_number, label_text, run_labels
from tokenmill.contracts import cost_report, ledger
from tokenmill.errors import TokenmillError

KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
VALUE = re.compile(r"[a-z0-9_-]{0,63}")
SETTINGS = {
    "project": "p",
    "region": "europe-west4",
    "model": "demo",
    "image": "europe-docker.pkg.dev/p/r/serving@sha256:" + "a" * 64,
}
LEDGER_KEYS = {
    "funnel": {
        "total": {
            "raw": {"documents": 1000},
            "curated": {"documents": 800},
            "train": {"tokens": 123_456},
        }
    },
    "training": {"effective_tokens": 100_000.6, "steps": 250},
    "model": {"params_total": 4_208_128},
    "hardware": {"chip": "NVIDIA H100 (SXM5)", "chips": 8},
    "price": {"usd_per_chip_hour": 2.1},
    "cost": {"compute_usd": 0.0057},
}
REPORT_KEYS = {
    "actual": {"total_flops": 2.98e13, "chip_hours": 0.12, "compute_usd": 0.006},
    "quality": {"evaluation": {"total": {"bits_per_byte": 1.9638, "evaluated_tokens": 5358.0}}},
}


LEDGER = complete(ledger.Ledger, LEDGER_KEYS)
REPORT = complete(cost_report.CostReport, REPORT_KEYS)


@given(st.text(max_size=200))
def test_any_text_is_a_label_and_a_key(text):
    assert VALUE.fullmatch(label_text(text))
    assert KEY.fullmatch(label_key(text))


def test_texts_that_are_cut_stay_apart():
    long = "a" * 80
    assert label_text(long + "1") != label_text(long + "2")
    assert label_text(long + "1") == label_text(long + "1")


@given(st.floats(allow_nan=True, allow_infinity=True, width=32))
def test_a_number_is_a_label_or_left_out(value):
    text = label_number(value, 1e6)
    assert text is None or VALUE.fullmatch(text)


def test_the_labels_are_the_ledgers_numbers():
    labels = run_labels("demo", LEDGER, REPORT)
    assert labels == {
        "run": "demo",
        "chip": "nvidia-h100--sxm5-",
        "chips": "8",
        "raw_documents": "1000",
        "curated_documents": "800",
        "train_tokens": "123456",
        "effective_tokens": "100001",
        "training_steps": "250",
        "parameters": "4208128",
        "training_flops": "29800000000000",
        "chip_seconds": "432",
        "price_microusd_per_chip_hour": "2100000",
        "compute_microusd_estimated": "5700",
        "compute_microusd": "6000",
        "bits_per_byte_millionths": "1963800",
    }
    many = {f"measure_{i}": 1.0 for i in range(100)}
    keys = {**REPORT_KEYS, "quality": {"evaluation": {"total": many}}}
    report = complete(cost_report.CostReport, keys)
    assert len(run_labels("demo", LEDGER, report)) == MAX_LABELS


@pytest.mark.parametrize(
    ("name", "expected"), [("demo", "demo"), ("3-runs", "m-3-runs"), ("a" * 63, "a" * 63)]
)
def test_the_id_of_a_model(name, expected):
    assert registry.model_id(name) == expected
    assert re.fullmatch(r"[a-z_][a-z0-9_-]{0,62}", registry.model_id("9" * 63))


class Vertex(http.server.ThreadingHTTPServer):
    """models:upload and models.get of one location, in memory."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.uploads: list[aiplatform_v1.UploadModelRequest] = []
        self.versions: list[str] = []  # aliases, in the order in which they came
        self.refuses = False

    def upload(self, parent, body):
        request = aiplatform_v1.UploadModelRequest.from_json(
            json.dumps({**body, "parent": parent}), ignore_unknown_fields=False
        )
        assert len(request.model.labels) <= MAX_LABELS
        for key, value in request.model.labels.items():
            assert KEY.fullmatch(key)
            assert VALUE.fullmatch(value)
        assert bool(request.parent_model) == bool(self.versions), "the model exists, or not"
        self.uploads.append(request)
        self.versions += list(request.model.version_aliases)
        kind = "type.googleapis.com/google.cloud.aiplatform.v1.UploadModelResponse"
        return {
            "name": f"{parent}/operations/1",
            "done": True,
            "response": {
                "@type": kind,
                "model": f"{parent}/models/demo",
                "modelVersionId": str(len(self.versions)),
            },
        }


class Handler(http.server.BaseHTTPRequestHandler):
    """One request of Google's client."""

    def log_message(self, *arguments):
        pass

    def answer(self, code, document):
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def do_GET(self):
        path = urllib.parse.unquote(self.path.split("?")[0])
        name, _, alias = path.removeprefix("/v1/").partition("@")
        versions = self.server.versions
        if not versions or (alias and alias not in versions):
            self.answer(404, {"error": {"code": 404, "message": "no such model"}})
            return
        number = versions.index(alias) + 1 if alias else len(versions)
        self.answer(200, {"name": name, "versionId": str(number)})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.refuses:
            self.answer(403, {"error": {"code": 403, "message": "aiplatform.models.upload denied"}})
            return
        parent = self.path.split("?")[0].removeprefix("/v1/").removesuffix("/models:upload")
        self.answer(200, self.server.upload(parent, body))


@pytest.fixture
def vertex(monkeypatch):
    with Vertex() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = aiplatform_v1.ModelServiceClient(
            transport="rest",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": f"http://127.0.0.1:{server.server_address[1]}"},
        )
        monkeypatch.setattr(registry, "model_service", lambda region: client)
        yield server
        server.shutdown()


class Step:
    """The executor with a pushed version on disk."""

    def __init__(self, base):
        self.base, self.pushed = base, standard_artifacts.PushedModel()
        self.ledger, self.cost_report = Ledger(), CostReport()
        self.ledger.uri, self.cost_report.uri = str(base / "ledger"), str(base / "cost_report")
        (base / "ledger").mkdir()
        (base / "cost_report").mkdir()
        ledger.write_ledger(self.ledger.uri, LEDGER)
        cost_report.write_cost_report(self.cost_report.uri, REPORT)
        self.push("17")

    def push(self, version):
        directory = self.base / "serving" / version
        (directory / "variables").mkdir(parents=True)
        (directory / "saved_model.pb").write_bytes(b"graph")
        (directory / "variables" / "variables.index").write_bytes(b"index")
        self.pushed.set_int_custom_property("pushed", 1)
        self.pushed.set_string_custom_property("pushed_destination", str(directory))

    def __call__(self):
        registered = RegisteredModel()
        VertexRegistrarExecutor().Do(
            {
                "pushed_model": [self.pushed],
                "ledger": [self.ledger],
                "cost_report": [self.cost_report],
            },
            {"registered_model": [registered]},
            {"run_name": "demo", "settings": json.dumps(SETTINGS)},
        )
        return registered


@pytest.fixture
def step(tmp_path):
    return Step(tmp_path)


def test_a_pushed_model_is_registered_with_its_numbers(step, vertex, tmp_path):
    registered = step()
    (request,) = vertex.uploads
    assert request.parent == "projects/p/locations/europe-west4"
    assert request.model_id == "demo"
    assert dict(request.model.labels) == run_labels("demo", LEDGER, REPORT)
    assert list(request.model.version_aliases) == ["v17"]
    assert list(request.model.container_spec.args)[-1] == "--model_base_path=$(AIP_STORAGE_URI)"
    name = registered.get_string_custom_property("resource_name")
    assert name == "projects/p/locations/europe-west4/models/demo@1"
    assert registered.get_int_custom_property("registered") == 1
    # What Vertex AI takes is the version's directory and nothing beside it.
    uri = tmp_path / "serving" / ".registry" / "17"
    assert request.model.artifact_uri == str(uri)
    files = sorted(str(path.relative_to(uri)) for path in uri.rglob("*") if path.is_file())
    assert files == ["17/saved_model.pb", "17/variables/variables.index"]


def test_a_repeated_step_registers_nothing_twice(step, vertex):
    first, again = step(), step()
    assert len(vertex.uploads) == 1
    names = {a.get_string_custom_property("resource_name") for a in (first, again)}
    assert len(names) == 1


def test_the_next_push_is_the_next_version_of_the_same_model(step, vertex):
    step()
    step.push("18")
    registered = step()
    second = vertex.uploads[1]
    assert second.parent_model == "projects/p/locations/europe-west4/models/demo"
    assert second.model_id == ""
    assert registered.get_string_custom_property("resource_name").endswith("demo@2")


def test_what_was_not_pushed_is_not_registered(step, vertex):
    step.pushed.set_int_custom_property("pushed", 0)
    registered = step()
    assert vertex.uploads == []
    assert registered.get_int_custom_property("registered") == 0


def test_a_refusal_is_one_message(step, vertex):
    vertex.refuses = True
    with pytest.raises(TokenmillError, match=r"not registered: .*models\.upload denied"):
        step()


def test_missing_credentials_are_one_message(step, monkeypatch):
    from google.auth.exceptions import DefaultCredentialsError

    def none_there(region):
        raise DefaultCredentialsError("none were found")

    monkeypatch.setattr(registry, "model_service", none_there)
    with pytest.raises(TokenmillError, match="no credentials") as caught:
        step()
    assert "GOOGLE_APPLICATION_CREDENTIALS" in caught.value.hint
