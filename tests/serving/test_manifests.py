"""What cannot run here is at least well-formed, typed, and agrees with itself and the server."""

import json
import pathlib
import re

import pytest
import yaml
from google.protobuf import text_format
from published_schemas import problems
from tensorflow_serving.config import model_server_config_pb2

from serving.server.metrics import ServerMetrics

DIRECTORY = pathlib.Path(__file__).parents[2] / "serving" / "tensorflow_serving"
KINDS = [
    "ConfigMap",
    "Deployment",
    "Service",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
]


def documents(name):
    return list(yaml.safe_load_all((DIRECTORY / name).read_text()))


def test_kubernetes_objects_fit_their_published_schemas():
    found = documents("kubernetes.yaml")
    assert [document["kind"] for document in found] == KINDS
    for document in found:
        assert not problems(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [(("spec", "replica"), 2), (("spec", "replicas"), "two"), (("spec", "selector"), None)],
)
def test_the_check_would_find_a_mistake(path, value):
    deployment = next(d for d in documents("kubernetes.yaml") if d["kind"] == "Deployment")
    if value is None:
        del deployment[path[0]][path[1]]
    else:
        deployment[path[0]][path[1]] = value
    assert problems(deployment)


def pod():
    deployment = next(d for d in documents("kubernetes.yaml") if d["kind"] == "Deployment")
    return deployment["spec"]["template"]["spec"]


def test_the_pod_is_probed_bounded_and_may_do_little():
    (container,) = pod()["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert probe in container
    assert set(container["resources"]) == {"requests", "limits"}
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert all(mount["readOnly"] for mount in container["volumeMounts"])
    assert "latest" not in container["image"].rsplit(":", 1)[1]


def test_selectors_ports_and_names_agree():
    found = {d["kind"]: d for d in documents("kubernetes.yaml")}
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "tokenmill-serving"
    (container,) = pod()["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    flags = dict(flag.lstrip("-").split("=", 1) for flag in container["args"])
    assert ports == {"grpc": int(flags["port"]), "http": int(flags["rest_api_port"])}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    for flag in ("model_config_file", "batching_parameters_file", "monitoring_config_file"):
        directory, name = flags[flag].rsplit("/", 1)
        assert directory in mounts
        assert name in found["ConfigMap"]["data"]


def test_model_configs_are_tensorflow_servings():
    data = next(d for d in documents("kubernetes.yaml") if d["kind"] == "ConfigMap")["data"]
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(data["models.config"], config)
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("default", "/models/default")
    # Whatever has been pushed: numbers that stand here would be of no version.
    assert model.model_version_policy.latest.num_versions == 1
    assert not model.version_labels


def test_configs_are_the_same_in_both_places():
    data = next(d for d in documents("kubernetes.yaml") if d["kind"] == "ConfigMap")["data"]
    for name in ("batching.config", "monitoring.config", "models.config"):
        assert data[name].strip() == (DIRECTORY / name).read_text().strip()


def test_ids_are_not_filled_up_with_ids():
    """TensorFlow Serving fills up with each tensor's first element, which is a token."""
    assert "pad_variable_length_inputs" not in (DIRECTORY / "batching.config").read_text()


def test_compose_is_read_only_and_listens_on_loopback():
    (compose,) = documents("compose.yaml")
    server = compose["services"]["tensorflow-serving"]
    assert server["read_only"] is True
    assert server["user"] != "0"
    assert all(volume.endswith(":ro") for volume in server["volumes"])
    assert all(port.startswith("127.0.0.1:") for port in server["ports"])
    named = [flag for flag in server["command"] if "/config/" in flag]
    assert len(named) == 3
    for flag in named:
        assert (DIRECTORY / flag.rsplit("/", 1)[1].rstrip("}")).exists()


# From its source: util.cc, batching_session.cc, and TensorFlow's cc/saved_model/loader.cc, as
# prometheus_exporter.cc writes their names, with their labels.
TENSORFLOW_SERVINGS = {
    ":tensorflow:serving:request_count": {"model_name", "status"},
    ":tensorflow:serving:request_latency_bucket": {"model_name", "API", "entrypoint", "le"},
    ":tensorflow:serving:batching_session:queuing_latency_bucket": {"thread_pool_name", "le"},
    ":tensorflow:cc:saved_model:load_attempt_count": {"model_path", "status"},
}
OF_PROMETHEUS = {"job", "instance"}


def test_alerts_and_dashboard_ask_for_metrics_that_tensorflow_serving_has():
    (alerts,) = documents("alerts.yaml")
    dashboard = json.loads((DIRECTORY / "grafana.json").read_text())
    rules = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    panels = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    for expressions in (rules, panels):
        asked = {}
        for text in expressions:
            for name in re.findall(r":tensorflow[\w:]+", text):
                grouped = re.findall(r"(?:by|on) \(([^)]*)\)", text)
                matched = re.findall(r"(\w+)=~?\"", text)
                used = {label.strip() for group in grouped for label in group.split(",")}
                asked.setdefault(name, set()).update(used, matched)
        assert set(asked) == set(TENSORFLOW_SERVINGS)
        for name, labels in asked.items():
            assert labels - OF_PROMETHEUS <= TENSORFLOW_SERVINGS[name], name
    for text in rules + panels:
        assert text.count("(") == text.count(")")


def test_alerts_and_dashboard_ask_for_metrics_that_the_server_has():
    names = set()
    for family in ServerMetrics().registry.collect():
        names |= {family.name + suffix for suffix in ("", "_total", "_bucket", "_sum", "_count")}
    (alerts,) = documents("alerts.yaml")
    expressions = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    dashboard = json.loads((DIRECTORY / "grafana.json").read_text())
    expressions += [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    asked = {name for text in expressions for name in re.findall(r"tokenmill_\w+", text)}
    assert len(expressions) > 10
    assert asked <= names
    titles = " ".join(panel["title"] for panel in dashboard["panels"])
    for word in ("Latency", "Requests by outcome", "Tokens per second", "Cost per million"):
        assert word in titles


def test_kserve_names_the_same_volume():
    (service,) = documents("kserve.yaml")
    (claim,) = (v["persistentVolumeClaim"] for v in pod()["volumes"] if v["name"] == "models")
    storage = service["spec"]["predictor"]["model"]["storageUri"]
    assert storage == f"pvc://{claim['claimName']}"
