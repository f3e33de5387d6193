"""Submission of a compiled spec to Vertex AI Pipelines, and its dry run."""

import difflib
import json
from collections.abc import Mapping
from typing import Any, cast

from tokenmill.errors import TokenmillError

# By the names of schema 2.0, and by those of 2.1.
_COMPILE = "Make one with: tokenmill compile --runner vertex --output FILE."
_PARSERS = {"STRING": str, "INT": int, "DOUBLE": float}
_PARSERS |= {"NUMBER_INTEGER": int, "NUMBER_DOUBLE": float}


def read_spec(path: str) -> dict[str, Any]:
    """Read a compiled spec: the pipelineSpec of a PipelineJob, or the file itself if it is one.

    Raises:
        TokenmillError: The file is missing or is no compiled spec.
    """
    try:
        with open(path, encoding="utf-8") as source:
            job = json.load(source)
    except OSError as error:
        raise TokenmillError(f"cannot read {path}: {error.strerror}.", _COMPILE) from None
    except ValueError as error:
        raise TokenmillError(f"{path} is not JSON: {error}.", _COMPILE) from None
    spec = job.get("pipelineSpec", job) if isinstance(job, dict) else {}
    if "root" not in spec:
        raise TokenmillError(f"{path} holds no pipelineSpec.", _COMPILE)
    return cast("dict[str, Any]", spec)


def parse_parameters(spec: Mapping[str, Any], assignments: Mapping[str, str]) -> dict[str, Any]:
    """Parse values of the spec's runtime parameters, in their types.

    Raises:
        TokenmillError: The spec has no such parameter, or the value is not of its type.
    """
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    values = {}
    for name, text in assignments.items():
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"It has: {', '.join(sorted(declared))}."
            raise TokenmillError(f"--parameter {name}: the spec has no such parameter.", hint)
        kind = declared[name].get("parameterType") or declared[name]["type"]
        try:
            values[name] = _PARSERS[kind](text)
        except ValueError:
            raise TokenmillError(
                f"--parameter {name}={text}: expected a value of type {kind}."
            ) from None
    return values


def submit(
    path: str,
    project: str,
    region: str,
    service_account: str | None,
    assignments: Mapping[str, str],
    dry_run: bool,
) -> dict[str, Any]:
    """Submit the spec; return the request's job as a dictionary.

    Args:
        path: The compiled spec.
        project: Google Cloud project.
        region: Such as europe-west4.
        service_account: Who the run acts as; None is the project's default.
        assignments: Text values of runtime parameters.
        dry_run: Build the request without credentials and send nothing.

    Raises:
        TokenmillError: The spec or a parameter is wrong.
    """
    spec = read_spec(path)
    values = parse_parameters(spec, assignments)
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform

    job = aiplatform.PipelineJob(
        display_name=spec.get("pipelineInfo", {}).get("name") or "tokenmill",
        template_path=path,
        parameter_values=values,
        project=project,
        location=region,
        credentials=AnonymousCredentials() if dry_run else None,
    )
    if not dry_run:
        job.submit(service_account=service_account)
    request = job.to_dict()
    if service_account:
        request["serviceAccount"] = service_account
    return {"parent": f"projects/{project}/locations/{region}", "pipelineJob": request}
