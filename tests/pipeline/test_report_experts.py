"""What the page and the other tables say of a mixture of experts."""

import json
import math
import pathlib
import xml.etree.ElementTree as ET

import pytest
from click.testing import CliRunner
from complete_model import complete
from ml_metadata.proto import metadata_store_pb2
from test_report_cost import LEDGER_KEYS
from test_report_page import compared, ledger, rows_of, run_of, text_of

from components.ledger.component import headline
from components.push.labels import run_labels
from pipeline.cli import cli
from pipeline.loader import load_config
from pipeline.report.cost import notes
from pipeline.report.experts import expert_loads
from pipeline.report.page.render import render_page
from pipeline.report.run_comparison import runs_table
from pipeline.report.step_summary import step_remarks
from pipeline.runners.preflight import experts_export_remark
from tokenmill.contracts.base import write_document
from tokenmill.contracts.cost_report import CostReport
from tokenmill.contracts.ledger import Ledger
from tokenmill.contracts.served_model import ServedModel
from tokenmill.contracts.training import ExpertLoads, Telemetry, write_telemetry
from tokenmill.errors import TokenmillError
from tokenmill.metadata.run_history import RunNumbers
from tokenmill.metadata.step_records import StepRecord
from tokenmill.number_format import active_params

GOLDEN = pathlib.Path(__file__).parents[1] / "checkpoints" / "golden"
TOTAL, ACTIVE = 46_700_000, 12_900_000


def measured(step, loads, entropy=0.5):
    """A line of metrics.jsonl, of loads in means by layer."""
    layers = [
        {
            "layer": layer,
            "load_shares": [load / len(of) for load in of],
            "max_load": max(of),
            "dead_experts": [i for i, load in enumerate(of) if load < 0.01],
            "router_entropy_nats": entropy,
        }
        for layer, of in loads.items()
    ]
    line = {"event": "expert_load", "step": step, "seconds": 1.0 * step, "layers": layers}
    return ExpertLoads.model_validate(line)


def page_of(*times):
    return render_page(run_of(expert_loads=list(times)))


def sparse_ledger(**more):
    guidance = {k: v for k, v in LEDGER_KEYS["guidance"].items() if k != "goal"}
    keys = {**LEDGER_KEYS, "guidance": guidance, **more}
    keys["model"] = {"params_total": TOTAL, "params_active": ACTIVE}
    return complete(Ledger, keys)


def test_the_load_of_each_expert_is_drawn_over_the_training():
    first = {1: [2.4, 0.8, 0.8, 0.0], 3: [1.0, 1.0, 1.0, 1.0]}
    last = {1: [1.2, 1.0, 1.0, 0.8], 3: [0.5, 2.0, 1.5, 0.0]}
    page = page_of(measured(0, first, 1.3), measured(20, last, 0.7))
    text, rows = text_of(page), rows_of(page)
    assert "4 experts in each of 2 layers" in text
    assert "At step 20 the busiest is expert 1 of layer 3 with a load of 2; the busiest at" in text
    assert "step 0 had 2.4" in text
    assert "Entropy of the routers: 0.7, from 1.3 nats" in text
    assert f"ln 4 = {math.log(4):.2f}" in text
    assert ["layer 1, expert 0", "2.40", "1.20"] in rows
    assert ["20", "2.000", "1.600", "0.400", "0.000"] in rows  # busiest and idlest
    assert ["layer 3", "1 (2.00)", "3 (0.00)", "1", "0.700"] in rows
    # Columns are times, rows experts: at step 0 the first of layer 1 is darkest, the last blank.
    assert '<path class="f0" fill-opacity="1" d="M0 0h1v1h-1z"/>' in page
    assert '<path class="f0" fill-opacity="0.4" d="M0 1h1v1h-1zM0 2h1v1h-1zM1 3h1v1h-1z"/>' in page


def test_dead_experts_are_named_and_counted():
    alive = text_of(page_of(measured(9, {0: [1.5, 0.5]})))
    assert "No expert is dead" in alive
    many = [0.0] * 40 + [40 / 3] * 3 + [0.02]
    one = text_of(page_of(measured(9, {0: [2.0, 0.0], 5: [1.0, 1.0]})))
    assert "1 of 4 experts is dead, with under a hundredth of the mean load: layer 0: 1." in one
    some = text_of(page_of(measured(9, {layer: many for layer in range(20)})))
    assert "800 of 880 experts are dead" in some
    assert "layer 0: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 28 more" in some
    assert "and 8 more layers. A dead expert" in some


def test_the_trainers_line_is_followed_by_its_dead_experts(tmp_path):
    def record(*times):
        (tmp_path / "metrics.jsonl").write_text(
            "".join(json.dumps(x) + "\n" for x in [{"step": 1}, *(t.to_json() for t in times)])
        )
        artifact = metadata_store_pb2.Artifact(uri=str(tmp_path))
        return StepRecord(False, {"model_run": [artifact], "model": [artifact]})

    write_telemetry(str(tmp_path), complete(Telemetry, {"steps": 9}))
    shape = load_config().shape()
    model = ServedModel(model_shape=shape, parameters=1, quantization="float32")
    extra = tmp_path / "Format-Serving" / "assets.extra"
    extra.mkdir(parents=True)
    write_document(str(extra / "model.json"), model)
    early, late = measured(3, {0: [2.0, 0.0]}), measured(9, {0: [1.0, 1.0], 1: [0.0, 2.0]})
    (remark,) = step_remarks("Trainer", record(early, late))
    assert remark.startswith("after 9 steps 1 of 4 experts is dead")
    assert "layer 1: 0. A dead expert" in remark
    assert step_remarks("Trainer", record(early, measured(9, {0: [1.0, 1.0]}))) == []
    assert step_remarks("Trainer", record()) == []


def test_a_log_of_another_version_costs_the_part_on_experts_alone():
    with pytest.raises(TokenmillError, match=r"metrics\.jsonl: layers: .*expected the keys"):
        expert_loads("/run", [{"event": "expert_load", "step": 1, "seconds": 1.0}])


def test_many_layers_experts_and_times_have_room():
    times = [
        measured(step, {layer: [1.0] * 255 + [1.0 + step / 500] for layer in range(60)})
        for step in range(101)
    ]
    page = page_of(*times)
    ET.fromstring(page)
    assert len(page) - len(page_of()) < 200_000
    text = text_of(page)
    assert "Load of each expert over the training, some layers" in text
    assert "from step 0 to 100" in text
    assert ["100", "1.200", "1.200", "1.000", "1.000"] in rows_of(page)


def test_a_dense_model_has_no_such_part():
    assert "experts" not in text_of(page_of())


def test_active_parameters_stand_beside_all_where_they_differ():
    dense, sparse = run_of(), run_of(ledger=sparse_ledger())
    assert "12,900,000" in text_of(render_page(sparse))
    label = "parameters that a token passes, of mixtures of experts"
    assert [label, "", "12,900,000"] in rows_of(
        compared(dense, run_of(ledger=sparse_ledger(), run_id="2"))
    )
    assert label not in text_of(compared(dense, run_of(run_id="2")))
    assert active_params(5, 5) == active_params(5, None) == ""
    assert active_params(46_700, 12_900) == " (12,900 active a token)"


def test_properties_and_labels_have_both():
    found = sparse_ledger()
    assert headline(found)["params_active"] == ACTIVE
    assert headline(ledger())["params_active"] == ledger().model.params_total
    cost = complete(CostReport, {"quality": {"evaluation": {"total": {}}}})
    labels = run_labels("r", found, cost)
    assert (labels["parameters"], labels["active_parameters"]) == (str(TOTAL), str(ACTIVE))
    assert "active_parameters" not in run_labels("r", ledger(), cost)


def test_runs_side_by_side_have_a_column_of_active_parameters():
    def numbers(total, active):
        return RunNumbers("r", estimated={"params_total": total, "params_active": active})

    def columns(*runs):
        return [column.header for column in runs_table(list(runs)).columns]

    assert "active" in columns(numbers(4, 4), numbers(8, 2))
    assert "active" not in columns(
        numbers(4, 4), RunNumbers("older", estimated={"params_total": 4})
    )


def test_tokens_are_counted_by_active_parameters_and_said_so():
    assert any("tokens an active parameter." in note for note in notes(sparse_ledger()))
    assert not any("active" in note for note in notes(ledger()))
    assert "an active parameter" in text_of(render_page(run_of(ledger=sparse_ledger())))


def test_import_tells_both():
    told = CliRunner().invoke(cli, ["import", str(GOLDEN / "mixtral")]).output
    facts = json.loads(
        CliRunner().invoke(cli, ["import", str(GOLDEN / "mixtral"), "--json"]).output
    )
    active = facts["active_parameters"]
    assert active < facts["parameters"]
    assert f"{facts['parameters']:,} ({active:,} active a token)" in " ".join(told.split())
    dense = CliRunner().invoke(cli, ["import", str(GOLDEN / "qwen3")]).output
    assert "active" not in dense


MIXTRAL = [
    "model.experts=4", "model.mlp=swiglu", "model.norm=rms", "model.use_bias=false",
]  # fmt: skip


def test_what_no_family_can_express_is_said_before_the_first_step():
    def remark(*overrides):
        return experts_export_remark(load_config(overrides=list(overrides)))

    assert remark() == ""  # a dense model, whatever it is
    assert remark(*MIXTRAL, "model.tie_embeddings=false") == ""
    said = remark(*MIXTRAL, "model.tie_embeddings=false", "model.balance=bias")
    assert "will not be able to write this mixture of experts" in said
    assert "cannot express balance = bias" in said
    encoder = remark("model.experts=4", "train.task=masked-lm")
    assert "this mixture of experts: no family has such a model. It is" in encoder
    assert "router = sigmoid" in remark(*MIXTRAL, "model.router=sigmoid")
