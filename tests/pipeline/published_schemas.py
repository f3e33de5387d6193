"""Kubernetes' objects against the schemas that their projects publish (schemas/kubernetes.json).

tools/kubernetes_schemas.py says which releases those are of. Beside JSON Schema a validator here
knows what an API server asks of a list with keys, and the rules in CEL: each that applies to what
is checked has its twin in Python here, and one without is an error.
"""

import json
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

PATH = pathlib.Path(__file__).parent / "schemas" / "kubernetes.json"
SCHEMAS = json.loads(PATH.read_text())
VERSIONS = [tuple(name.split()) for name in SCHEMAS if " " in name]
CEL: dict[str, Callable[[Any], bool]] = {
    "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')": lambda job: bool(
        re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
    ),
    "size(self.metadata.name) <= 63": lambda job: len(job["metadata"]["name"]) <= 63,
    "!(has(self.startupPolicy) && self.startupPolicy.startupPolicyOrder == 'InOrder' && "
    "self.replicatedJobs.exists(x, has(x.dependsOn)))": lambda spec: (
        not (
            spec.get("startupPolicy", {}).get("startupPolicyOrder") == "InOrder"
            and any("dependsOn" in job for job in spec["replicatedJobs"])
        )
    ),
    "[has(self.torch), has(self.mpi), has(self.jax), has(self.xgboost),has(self.flux)]"
    ".filter(x, x).size() <= 1": lambda policy: (
        len({"torch", "mpi", "jax", "xgboost", "flux"} & set(policy)) <= 1
    ),
    "!(has(self.torch) && has(self.mpi))": lambda policy: not {"torch", "mpi"} <= set(policy),
    "!(has(self.numNodes) && (has(self.torch) && has(self.torch.elasticPolicy)))": lambda policy: (
        not ("numNodes" in policy and "elasticPolicy" in policy.get("torch", {}))
    ),
}


def _unique_keys(validator: Any, keys: list[str], items: Any, schema: Any) -> Iterator[Any]:
    """Entries of a list of type map differ in their keys; a key may have a default."""
    described = schema["items"]
    while "$ref" in described:
        described = SCHEMAS[described["$ref"].removeprefix("#/")]
    fields = described.get("properties", {})
    seen = [tuple(item.get(key, fields.get(key, {}).get("default")) for key in keys)
            for item in items]  # fmt: skip
    if len(set(seen)) < len(seen):
        yield ValidationError(f"two entries have the same {', '.join(keys)}: {seen}")


def _cel(validator: Any, rules: list[dict[str, str]], value: Any, schema: Any) -> Iterator[Any]:
    for rule in (each["rule"] for each in rules):
        if "oldSelf" in rule:  # of a change, not of a new object
            continue
        if rule not in CEL:
            yield ValidationError(f"the rule {rule!r} has no twin in {__file__}")
        elif not CEL[rule](value):
            yield ValidationError(f"{value!r} does not fulfil {rule!r}")


_Validator = extend(
    Draft202012Validator,
    {"x-kubernetes-list-map-keys": _unique_keys, "x-kubernetes-validations": _cel},
)


def problems(document: dict[str, Any], version: str | None = None) -> list[str]:
    """List where an object differs from its schema, by default that of the newest release.

    Args:
        document: With its `kind`.
        version: A release of the project that the kind is of.
    """
    kind = document["kind"]
    known = [each for name, each in VERSIONS if name == kind]
    newest = max(known, key=lambda each: [int(part) for part in each[1:].split(".")])
    schema = {**SCHEMAS, "$ref": f"#/{kind}%20{version or newest}"}
    found = sorted(_Validator(schema).iter_errors(document), key=lambda error: list(error.path))
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in found]
