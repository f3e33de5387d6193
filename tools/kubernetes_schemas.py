"""Write the published schemas of the Kubernetes objects that tokenmill writes, for the tests.

    python tools/kubernetes_schemas.py

Go's module proxy has the releases (`go mod download`, Go 1.21 or newer): CustomResourceDefinitions
of JobSet and of Kubeflow Trainer, and Kubernetes' OpenAPI, all under Apache-2.0. Kept of a schema
is what a validator reads: no descriptions, no status, and what is there several times once. An
object may have no field that its schema does not name (an API server refuses or drops it).
"""

import hashlib
import json
import pathlib
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from typing import Any

import yaml

TARGET = pathlib.Path(__file__).parents[1] / "tests/pipeline/schemas/kubernetes.json"
KUBERNETES = "k8s.io/kubernetes@v1.36.0"
OBJECTS = {
    "io.k8s.api.apps.v1.Deployment": "apis__apps__v1_openapi.json",
    "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler": "apis__autoscaling__v2_openapi.json",
    "io.k8s.api.batch.v1.Job": "apis__batch__v1_openapi.json",
    "io.k8s.api.core.v1.ConfigMap": "api__v1_openapi.json",
    "io.k8s.api.core.v1.Service": "api__v1_openapi.json",
    "io.k8s.api.networking.v1.NetworkPolicy": "apis__networking.k8s.io__v1_openapi.json",
    "io.k8s.api.policy.v1.PodDisruptionBudget": "apis__policy__v1_openapi.json",
}
# The oldest and the newest release that docs/engines.md names, and those where the CRD changed.
JOB_SETS = ("v0.6.0", "v0.8.2", "v0.12.0")
TRAINERS = ("v2.0.0", "v2.1.0", "v2.2.1", "v2.3.0")
_JOB_SET_CRD = "config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml"
_TRAINER_CRDS = "manifests/base/crds/trainer.kubeflow.org_{}.yaml"
_DROPPED = ("description", "example", "x-kubernetes-group-version-kind", "externalDocs")
_SHARED_BYTES = 300  # a schema so long that is there twice is kept once


def main() -> None:
    """Download the releases and write the schemas."""
    kubernetes = _download(KUBERNETES) / "api/openapi-spec/v3"
    kinds: dict[str, dict[str, Any]] = {}
    for name, file in OBJECTS.items():
        components = json.loads((kubernetes / file).read_text())["components"]["schemas"]
        found = _plain(_resolved(components, name))
        found["required"] = sorted({"apiVersion", "kind", "metadata", *found.get("required", ())})
        found["properties"].pop("status", None)
        kinds[name.rpartition(".")[2]] = {KUBERNETES.rpartition("@")[2]: found}
    (version,) = kinds["ConfigMap"]
    metadata = kinds["ConfigMap"][version]["properties"]["metadata"]
    for version in JOB_SETS:
        crd = _download(f"sigs.k8s.io/jobset@{version}") / _JOB_SET_CRD
        kinds.setdefault("JobSet", {})[version] = _custom(crd, "v1alpha2", metadata)
    for version in TRAINERS:
        home = _download(f"github.com/kubeflow/trainer/v2@{version}")
        for kind, plural in (("TrainingRuntime", "trainingruntimes"), ("TrainJob", "trainjobs")):
            crd = home / _TRAINER_CRDS.format(plural)
            kinds.setdefault(kind, {})[version] = _custom(crd, "v1alpha1", metadata)
    lines = (
        f"{json.dumps(name)}:{_canonical(schema)}"
        for name, schema in sorted(_shared(kinds).items())
    )
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text("{" + ",\n".join(lines) + "}\n")  # a schema a line, for diffs
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


def _download(module: str) -> pathlib.Path:
    """Return the directory of a Go module's release."""
    with tempfile.TemporaryDirectory() as directory:  # no module of ours is meant
        result = subprocess.run(
            ["go", "mod", "download", "-json", module],
            cwd=directory,
            stdout=subprocess.PIPE,
            check=True,
        )
    return pathlib.Path(json.loads(result.stdout)["Dir"])


def _custom(crd: pathlib.Path, version: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a CustomResourceDefinition, with that of an object's metadata."""
    definition = yaml.load(crd.read_text(), Loader=yaml.CSafeLoader)
    (schema,) = (v["schema"] for v in definition["spec"]["versions"] if v["name"] == version)
    found = _plain(schema["openAPIV3Schema"])
    names, group = definition["spec"]["names"], definition["spec"]["group"]
    found["properties"]["apiVersion"] = {"const": f"{group}/{version}"}
    found["properties"]["kind"] = {"const": names["kind"]}
    found["properties"]["metadata"] = metadata
    found["properties"].pop("status", None)
    found["required"] = ["apiVersion", "kind", "metadata"]
    return found


def _resolved(components: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a component's schema, with those it refers to in their places."""

    def resolve(value: Any) -> Any:
        if isinstance(value, list):
            return [resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return resolve(components[value["$ref"].rpartition("/")[2]])
        return {key: resolve(item) for key, item in value.items()}

    found: dict[str, Any] = resolve(components[name])
    return found


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Drop what no validator reads; allow no other fields than the named ones."""
    kept = {key: value for key, value in schema.items() if key not in _DROPPED}
    kept = _with_inner(kept, _plain)
    if "properties" in kept and not kept.get("x-kubernetes-preserve-unknown-fields"):
        kept.setdefault("additionalProperties", False)
    if set(kept) <= {"allOf", "default"} and len(kept.get("allOf", ())) == 1:
        kept = {**kept.pop("allOf")[0], **kept}  # OpenAPI's way to add a default
    return kept


def _with_inner(
    schema: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """Return a schema with those that are in it changed; a map of properties is none itself."""
    changed = dict(schema)
    if "properties" in schema:
        changed["properties"] = {name: change(v) for name, v in schema["properties"].items()}
    for key in ("items", "additionalProperties", "not"):
        if isinstance(schema.get(key), dict):
            changed[key] = change(schema[key])
    for key in ("allOf", "anyOf", "oneOf"):
        if key in schema:
            changed[key] = [change(item) for item in schema[key]]
    return changed


def _shared(kinds: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas by kind and version, and by its hash what is there several times."""
    counts: Counter[str] = Counter()

    def count(schema: dict[str, Any]) -> dict[str, Any]:
        if len(text := _canonical(schema)) > _SHARED_BYTES:
            counts[text] += 1
        return schema if counts[text] > 1 else _with_inner(schema, count)

    definitions: dict[str, Any] = {}

    def share(schema: dict[str, Any]) -> dict[str, Any]:
        text = _canonical(schema)
        inner = _with_inner(schema, share)
        if counts[text] < 2:
            return inner
        name = hashlib.sha256(text.encode()).hexdigest()[:12]
        definitions[name] = inner
        return {"$ref": f"#/{name}"}

    whole = {f"{kind} {version}": schema for kind, versions in kinds.items()
             for version, schema in versions.items()}  # fmt: skip
    for schema in whole.values():
        count(schema)
    return {**{name: share(schema) for name, schema in whole.items()}, **definitions}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


if __name__ == "__main__":
    main()
