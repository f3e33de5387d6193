import copy
import datetime
import html
import json
import pathlib
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner
from complete_model import complete
from rich.cells import cell_len
from test_report_cost import COST_KEYS, LEDGER_KEYS

from pipeline.cli import cli
from pipeline.report.page.charts import (
    Interval,
    Line,
    interval_chart,
    line_chart,
    shorten_label,
    ticks,
)
from pipeline.report.page.compared_runs import name_runs
from pipeline.report.page.comparison import render_comparison
from pipeline.report.page.render import render_page
from pipeline.report.page.run_documents import RunDocuments, StepLinks, log_directory_of
from pipeline.report.page.write import write_page
from tokenmill.contracts.cost_report import CostReport
from tokenmill.contracts.curation import Curation, DroppedDocument
from tokenmill.contracts.ledger import Ledger
from tokenmill.contracts.samples import Samples
from tokenmill.contracts.training import Telemetry
from tokenmill.errors import TokenmillError

MOST_BYTES = 3_000_000
SCRIPT = "<script>alert(1)</script>"
MARKUP = f"{SCRIPT}\"'><img src=x onerror=a()>]]>--></style>&"
HOSTILE = MARKUP + "\x1b[2J\u202egnp\u2066\x00\r\x85\uffff{{1}}"
LONG = "x" * 100_000
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
# What a page could do anything with, or fetch.
ALIVE = {"script", "iframe", "object", "embed", "link", "img", "base", "form"}


def ledger(sources=("a", "b")):
    keys = copy.deepcopy(LEDGER_KEYS)
    total = {**keys["funnel"]["total"], "dropped": {"near_duplicate": {}}}
    keys["funnel"] = {"total": total, "by_source": dict.fromkeys(sources, total)}
    keys["memory"]["bytes_by_part"] = {"weights": 3, "gradients": 2}
    keys["training"] = {"effective_tokens": 1234567.0}
    return complete(Ledger, keys)


def ledger_over():
    return complete(Ledger, {**LEDGER_KEYS, "budget": {"max_usd": 5.0}})


def metrics(value):
    return {"bits_per_byte": value, "bits_per_byte_ci95_low": value - 0.5,
            "bits_per_byte_ci95_high": value + 0.5, "evaluated_documents": 40.0,
            "calibration_error": 0.03}  # fmt: skip


def cost(sources=("a", "b"), failures=()):
    evaluation = {
        "total": metrics(2.5),
        "by_source": {name: metrics(2.0 + i) for i, name in enumerate(sources)},
        "failures": list(failures),
        "calibration": [
            {"low": 0.0, "high": 0.5, "count": 30, "confidence": 0.25, "accuracy": 0.2},
            {"low": 0.5, "high": 1.0, "count": 10, "confidence": 0.75, "accuracy": 0.5},
        ],
    }
    losses = {"bits_per_byte": 3.5, "loss": 8.0, "perplexity": 9.0}
    quality = {"evaluation": evaluation, "eval_before": losses, "eval_after": losses,
               "unigram_bits_per_byte": 2.9}  # fmt: skip
    return complete(CostReport, {**COST_KEYS, "quality": quality})


def telemetry():
    keys = {"steps": 20, "loss_curve": [(1, 8.0), (20, 6.0)], "eval_losses": [(10, 7.0)]}
    return complete(Telemetry, keys)


def held_out(text):
    """Two texts at two times, and attention of two tokens: the second looks at both."""
    points = [
        {"step": step, "samples": [{"prompt": f"{i}{text}", "output": f"{text} {step}",
                                    "expected": text} for i in range(2)]}
        for step in (0, 20)
    ]  # fmt: skip
    heads = [[[1.0, 0.0], [0.25, 0.75]], [[1.0, 0.0], [0.75, 0.25]]]
    attention = {"tokens": [text, "b"], "is_mean": False,
                 "layers": [{"layer": i, "heads": heads} for i in range(7)]}  # fmt: skip
    return Samples.model_validate({"points": points, "attention": attention})


def run_of(text="plain", **more):
    """A run whose every text from outside is this one."""
    raw = text.encode()
    sample = DroppedDocument(
        split="train", doc_id=raw, source=raw,
        excerpt=text, raw_bytes=5, reason="contaminated", value=1.0, threshold=0.5,
        kept_copy=b"kept", shared=text, matched=text,
    )  # fmt: skip
    dropped = {"near_duplicate": {"documents": 2, "bytes": 4_000_000}}
    splits = {"train": {"by_source": {text: {"dropped": dropped}}}}
    values = {
        "run_id": "2026-11-29T19:18:40", "directory": "/runs/demo",
        "log_directory": "/runs/demo/logs/1",
        "config_toml": f"[run]\nname = {json.dumps(text)}\n",
        "links": [StepLinks("Curator", False, {"dropped": f"/runs/demo/{text}"}, ["Ingest"])],
        "inputs": [{"path": text, "size_bytes": 10}],
        "samples": {"contaminated": [sample]}, "held_out": held_out(text),
        "curation": complete(Curation, {"remarks": [text], "splits": splits}),
        "ledger": ledger((text, "b")), "telemetry": telemetry(),
        "metrics": [{"step": s, "learning_rate": 0.1 * s, "mfu": 0.4} for s in (1, 2)],
        "cost_report": cost((text, "b"), failures=[text]), "pushed_to": f"/runs/demo/{text}",
    }  # fmt: skip
    return RunDocuments(**{**values, **more})


class Tags(HTMLParser):
    """Reads as a browser does: tags, attributes, text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes = set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs


def check_is_safe(page):
    """Well-formed by XML's rules, fetches nothing, runs nothing."""
    ET.fromstring(page)
    found = Tags(page)
    assert not found.tags & ALIVE
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    addresses = [value for name, value in found.attributes if name in ("href", "src")]
    assert addresses
    assert all(value.startswith(("#", "./")) for value in addresses)
    assert len(page.encode()) < MOST_BYTES


def text_of(page):
    return " ".join("".join(ET.fromstring(page).itertext()).split())


@pytest.mark.parametrize(
    "text", [HOSTILE, LONG, f"{SCRIPT}{LONG}", "\u05d0\u05d1 \u0633\u0644\u0627\u0645"]
)
def test_text_of_documents_is_shown_and_never_obeyed(text):
    page = render_page(run_of(text))
    check_is_safe(page)
    assert SCRIPT not in page
    assert not RAW.search(page)
    assert LONG[:5_000] not in page
    if text is HOSTILE:
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert r"\u001b[2J\u202egnp\u2066" in page
        assert "{{1}}" in page  # text is no template


def test_the_first_screen_has_the_three_numbers_and_the_verdict():
    text = text_of(render_page(run_of(cost_report=cost())))
    assert "Blessed and pushed" in text
    assert "near duplicate" in text_of(render_page(run_of(curation=None)))
    assert "4 MB" in text
    for number in ("1,234,567", "$1.00", "2.500", "unigram 2.900", "untrained 3.500"):
        assert number in text
    refused = text_of(render_page(run_of(cost_report=cost(failures=["bits_per_byte is 9"]))))
    assert "Not blessed" in refused
    assert "bits_per_byte is 9" in refused


def test_every_picture_has_words_and_its_numbers():
    page = render_page(run_of())
    root = ET.fromstring(page)
    figures = [e for e in root.iter() if e.tag.endswith("}figure")]
    assert len(figures) >= 8
    for figure in figures:
        (picture,) = [e for e in figure.iter() if e.get("role") == "img"]
        assert len(picture.get("aria-label")) > 20
        assert [e for e in figure.iter() if e.tag.endswith("}td")]


def test_what_a_run_did_not_come_to_is_absent():
    bare = RunDocuments(
        run_id="1", directory="/r", log_directory="/r/logs/1", ended="failed at TokenLedger",
        links=[StepLinks("Curator", False, {}, [])],
    )  # fmt: skip
    page = render_page(bare)
    check_is_safe(page)
    text = text_of(page)
    assert "the run failed at TokenLedger" in text
    for absent in ("effective tokens", "cost of training", "bits per byte", "Quality", "$", "None"):
        assert absent not in text
    over = text_of(render_page(run_of(over_budget=True, cost_report=None, ledger=ledger_over())))
    assert "Over budget: nothing was trained" in over
    assert "The limits: budget.max_usd = 5." in over
    no_evaluator = text_of(
        render_page(run_of(cost_report=None, pushed_to="", ended="failed at Evaluator"))
    )
    assert "1,234,567" in no_evaluator
    assert "Loss" in no_evaluator
    assert "estimated compute" in no_evaluator
    assert "Quality" not in no_evaluator


def test_calibration_is_drawn_by_bin_of_confidence():
    page = render_page(run_of())
    assert ["50.0% to 100.0%", "10", "75.0%", "50.0%"] in rows_of(page)
    assert "30, are given 25.0% on average, and 20.0% of them are right" in page
    (picture,) = [e for e in ET.fromstring(page).iter()
                  if e.get("aria-label", "").startswith("A dot for each of 2 bins")]  # fmt: skip
    large, small = (float(e.get("r")) for e in picture.iter() if e.tag.endswith("}circle"))
    assert large > small > 0


def test_versions_and_machine_are_those_that_trained():
    machine = {"processor": "x86_64", "vcpus": 2, "memory_bytes": 8_000_000_000,
               "accelerators": ["NVIDIA H200", "NVIDIA H200"]}  # fmt: skip
    keys = {"versions": {"tensorflow": "2.21.0"}, "machine": machine}
    page = render_page(run_of(telemetry=complete(Telemetry, {**telemetry().to_json(), **keys})))
    assert ["tensorflow", "2.21.0"] in rows_of(page)
    assert "had 2 cores (x86_64), 8 GB of memory and 2 x NVIDIA H200." in text_of(page)


def test_held_out_texts_stand_by_step_and_attention_is_drawn():
    page = render_page(run_of())
    rows = rows_of(page)
    assert rows.count(["before training", "plain 0"]) == 2
    assert rows.count(["after 20 steps", "plain 20"]) == 2
    assert rows.count(["the text itself", "plain"]) == 2
    # The mean over the heads, of the first and the last layer and two between.
    assert rows.count(["plain", "1.000", "0.000"]) == rows.count(["b", "0.500", "0.500"]) == 4
    text = text_of(page)
    assert "Attention of layer 6" in text
    assert "75% of a token's attention goes to the first token, 75% to itself" in text
    # One cell of weight 1, two of 0.5, whose shades are by the square root.
    assert '<path class="f0" fill-opacity="1" d="M0 0h1v1h-1z"/>' in page
    assert '<path class="f0" fill-opacity="0.7" d="M0 1h1v1h-1zM1 1h1v1h-1z"/>' in page
    assert "Samples of held-out" not in text_of(render_page(run_of(held_out=None)))


def test_the_same_documents_give_the_same_bytes():
    assert render_page(run_of()) == render_page(run_of())


def test_ticks_are_round_and_enclose():
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(1, 20, whole=True)[0] <= 1
    for low, high in ((0, 0), (5, 5), (-3, 7.1), (1e-9, 3e-9), (0, 1e15)):
        found = ticks(low, high)
        assert found[0] <= low
        assert found[-1] >= high
        assert 2 <= len(found) <= 12


def test_charts_draw_what_is_finite_and_cut_wide_intervals():
    svg, legend = line_chart(
        [Line("a", [(1, 2.0), (2, float("nan")), (3, 4.0)]), Line("none", [])], "step", str
    )
    assert "nan" not in svg
    assert not legend
    svg = interval_chart([Interval("a", 2.0, -1e9, 1e9, "2"), Interval("b", 3.0, None, None, "3")])
    centers = [float(x) for x in re.findall(r'cx="([\d.]+)"', svg)]
    assert centers[1] - centers[0] > 20  # an interval without bounds does not press them together
    assert svg.count("<line") == 1


@pytest.mark.parametrize("norms", [[float("inf"), float("nan")], [float("inf"), 1.0, 2.0]])
def test_gradient_norms_that_overflow_keep_no_page_from_being_drawn(norms):
    lines = [{"step": i + 1, "gradient_norm": norm} for i, norm in enumerate(norms)]
    page = render_page(run_of(metrics=lines))
    ET.fromstring(page)
    assert ("Gradient norm" in page) == (2.0 in norms)


def test_the_curves_of_a_long_training_have_room():
    lines = [{"step": i + 1, "learning_rate": 0.1, "gradient_norm": float(i), "mfu": 0.4,
              "tokens_per_second": 1e4} for i in range(20_001)]  # fmt: skip
    page = render_page(run_of(metrics=lines))
    assert len(page.encode()) < MOST_BYTES / 10
    assert "20,001" in text_of(page)  # the last step is always there


def test_a_label_of_wide_characters_is_cut_to_its_place():
    assert shorten_label("語" * 11) == "語" * 11
    cut = shorten_label("語" * 12)
    assert cut.startswith("語" * 10)
    assert cut.endswith("…")
    assert cell_len(cut) <= 22
    assert shorten_label("x" * 23) == "x" * 21 + "…"


def test_the_page_lies_beside_the_log_that_was_begun_last_before_the_run(tmp_path):
    logs = tmp_path / "logs"
    for name in ("20261129T100000.000000Z", "20261129T120000.000000Z", "notes"):
        (logs / name).mkdir(parents=True)
    at = datetime.datetime(2026, 11, 29, 11, 30, tzinfo=datetime.timezone.utc).timestamp()
    assert log_directory_of(str(tmp_path), at) == str(logs / "20261129T100000.000000Z")
    assert log_directory_of(str(tmp_path), at + 3600) == str(logs / "20261129T120000.000000Z")
    gone = log_directory_of(str(tmp_path), at - 7200)  # its log was removed
    assert gone == str(logs / "20261129T093000.000000Z")


def test_the_command_writes_it_again_and_names_it(first_run, tmp_path):
    before = sorted((first_run.home / "logs").glob("*/report.html"))[-1]
    written = before.read_bytes()
    before.unlink()
    assert pathlib.Path(write_page(str(first_run.home))).read_bytes() == written
    result = CliRunner().invoke(cli, ["report", str(first_run.home)])
    assert result.output.strip().endswith(str(before))
    assert CliRunner().invoke(cli, ["report", str(tmp_path)]).exit_code == 1


def test_what_cannot_be_written_is_an_error_of_the_user(first_run, tmp_path):
    home = shutil.copytree(first_run.home, tmp_path / "run")
    for log in (home / "logs").iterdir():
        (log / "report.html").unlink(missing_ok=True)
        (log / "report.html").mkdir()
    failed = CliRunner().invoke(cli, ["report", str(home)])
    assert failed.exit_code == 1
    assert "report.html: Is a directory" in failed.output
    for output in (str(tmp_path), "gs://bucket/page.html"):
        runs = [str(home), str(first_run.home)]
        failed = CliRunner().invoke(cli, ["report", *runs, "--output", output])
        assert failed.exit_code == 1
        assert f"--output {output}: expected a file on this machine" in failed.output


def test_a_damaged_log_of_metrics_costs_its_curves_alone(first_run, tmp_path):
    home = shutil.copytree(first_run.home, tmp_path / "run")
    for log in (home / "artifacts" / "Trainer" / "model_run").glob("*/metrics.jsonl"):
        log.write_bytes(b"\xff\n" + log.read_bytes())
    (tmp_path / "link").symlink_to(home)
    twice = CliRunner().invoke(cli, ["report", str(home), str(tmp_path / "link")])
    assert "is given twice" in twice.output
    page = pathlib.Path(write_page(str(home))).read_text()
    assert "nats a loss token" in page
    assert "Gradient norm" not in page


def rows_of(page):
    """The cells of each row of each table, as they are read."""
    rows = [e for e in ET.fromstring(page).iter() if e.tag.endswith("}tr")]
    return [["".join(cell.itertext()) for cell in row] for row in rows]


def compared(*runs):
    return render_comparison(runs, "/runs/comparison.html")


@pytest.mark.parametrize("text", [HOSTILE, LONG])
def test_names_and_settings_of_compared_runs_are_shown_and_never_obeyed(text):
    changed = f"[run]\nname = {json.dumps(text)}\n[corpus]\ninput = [{json.dumps(text)}]\n"
    page = compared(run_of(text), run_of(text, config_toml=changed, run_id="2", directory=text))
    ET.fromstring(page)
    found = Tags(page)
    assert not found.tags & ALIVE
    assert SCRIPT not in page
    assert not RAW.search(page)
    assert LONG[:5_000] not in page
    assert len(page.encode()) < MOST_BYTES
    if text is HOSTILE:
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_compared_runs_have_a_column_each_and_differences_where_both_are_known():
    dearer = cost()
    dearer = dearer.model_copy(update={
        "actual": dearer.actual.model_copy(update={"compute_usd": 1.5})})  # fmt: skip
    config = '[run]\nname = "{}"\n[train]\nlearning_rate = {}\n'
    runs = [
        run_of(config_toml=config.format("small", 0.1), cost_report=cost()),
        run_of(config_toml=config.format("large", 0.2), cost_report=dearer),
        run_of(config_toml=config.format("failed", 0.1), cost_report=None, telemetry=None),
    ]
    text, rows = text_of(compared(*runs)), rows_of(compared(*runs))
    assert ["cost of training", "$1.00", "$1.50 (+50.0%)", ""] in rows
    assert "large, against small: effective tokens 1,234,567 (the same); cost of train" in text
    assert "failed, against small: effective tokens 1,234,567 (the same)." in text
    assert ["train.learning_rate", "0.1", "0.2", "0.1"] in rows
    assert "run.name" not in text
    assert ["bits per byte", "2.500", "2.500", ""] in rows
    curves = re.findall("<polyline", compared(*runs))
    assert len(curves) == 4  # two trainings, their text and the held-out one
    alike = text_of(compared(run_of(run_id="1"), run_of(run_id="2")))
    assert "Nothing: the runs have the same settings." in alike


def test_runs_of_one_name_are_told_apart():
    def names(*runs):
        return [each.name for each in name_runs(runs)]

    assert names(run_of("a"), run_of("b")) == ["a", "b"]
    here, there = run_of(), run_of(directory="/runs/other")
    assert names(here, there) == ["plain in /runs/demo", "plain in /runs/other"]
    assert names(here, run_of(run_id="2026-11-30")) == [
        "plain, 2026-11-29T19:18:40", "plain, 2026-11-30"]  # fmt: skip
    with pytest.raises(TokenmillError, match="given twice"):
        names(here, here)


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1000, 1600])
def test_a_browser_shows_it_without_complaint(width, first_run, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    page = sorted((first_run.home / "logs").glob("*/report.html"))[-1]
    # A window of Chromium is at least 500 pixels wide: the page is framed, and asked from outside.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"""<iframe id="f" style="width:{width}px;height:900px;border:0"
        srcdoc="{html.escape(page.read_text())}"></iframe><script>onload = () => {{
          const page = f.contentDocument, box = e => e.getBoundingClientRect()
          const cards = [...page.querySelectorAll(".numbers > div")]
          const wide = [...page.querySelectorAll("h1, h2, p, li, dd, figure svg, .wide")]
          document.title = JSON.stringify({{
            scroll: page.documentElement.scrollWidth,
            right: Math.max(...wide.map(e => box(e).right)),
            columns: new Set(cards.map(e => box(e).left)).size,
            figures: page.querySelectorAll("figure").length}})
        }}</script>"""
    )
    result = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in result.stderr
    layout = json.loads(re.search("<title>(.*?)</title>", result.stdout)[1])
    assert layout["figures"] >= 8
    assert layout["scroll"] <= width
    assert layout["right"] <= width
    assert layout["columns"] == (1 if width == 400 else 3)
