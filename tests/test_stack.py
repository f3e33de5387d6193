"""tokenmill/stack.py, the one module that knows two stacks, and what goes by its versions."""

import ast
import json
import pathlib
import sys

from tensorflow_serving.apis import get_model_status_pb2

from components.train.fingerprint import directory_name
from tokenmill.stack import proto_json, stack_versions

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = ("data", "tokenmill", "components", "serving", "pipeline")
# The parser's version is part of the key of the embedded corpus; a release is no library's; which
# transformers has checked an export is told.
ALLOWED = {
    "tokenmill/stack.py",
    "data/embedded_corpus.py",
    "components/ingest/component.py",
    "tokenmill/export/transformers_check.py",
}


def asks_for_a_version(node):
    if isinstance(node, ast.Attribute):
        return node.attr in ("__version__", "version_info", "hexversion", "python_version")
    return isinstance(node, ast.Call) and ast.unparse(node.func).endswith("metadata.version")


def test_no_other_module_asks_for_a_version():
    asking = {
        path.relative_to(ROOT).as_posix()
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*.py")
        if any(map(asks_for_a_version, ast.walk(ast.parse(path.read_text("utf-8")))))
    }
    assert asking == ALLOWED


def test_the_stack_is_one_of_two():
    python = sys.version_info[:2]
    tensorflow = {(3, 10): "2.16.2", (3, 12): "2.21.0", (3, 13): "2.21.0"}[python]
    assert f"tensorflow {tensorflow}, keras 3." in stack_versions()


def test_another_stack_is_another_training():
    job = {"train.learning_rate": 1e-3, "stack": stack_versions()}
    assert directory_name({**job, "stack": "tensorflow 2.99.0"}) != directory_name(job)


def test_defaults_are_in_the_json_of_a_message():
    response = get_model_status_pb2.GetModelStatusResponse()
    response.model_version_status.add(version=0).status.error_message = ""
    (status,) = json.loads(proto_json(response))["model_version_status"]
    assert status == {
        "version": "0", "state": "UNKNOWN", "status": {"error_code": "OK", "error_message": ""}
    }  # fmt: skip
