"""Requests against the training statistics, through the log that the server writes."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow_data_validation as tfdv
from click.testing import CliRunner

from components.validate.derived_features import (
    describe_documents,
    mark_derived,
    statistics_options,
)
from components.validate.statistics import STATISTICS_NAME
from pipeline.cli import cli
from serving.server.config import ServerConfig
from serving.server.metrics import ServerMetrics
from serving.server.service import RequestLog
from tokenmill.records.documents import document_batch
from tokenmill.records.splits import split_directory


def texts(count, mean_words, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(["größe"] * (1 + n)) for n in rng.poisson(mean_words, count)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's directory with the statistics of 2,000 documents of about 40 words."""
    run = tmp_path_factory.mktemp("run")
    documents = [text.encode() for text in texts(2000, 40, 0)]
    batch = document_batch([b"%d" % i for i in range(2000)], [b"s"] * 2000, documents)
    frame = describe_documents(batch, language=False).to_pandas()
    frame = frame.apply(lambda column: column.map(lambda value: value[0]))
    statistics = tfdv.generate_statistics_from_dataframe(frame, statistics_options())
    for number in (3, 12):  # the newest counts, by number
        uri = run / "artifacts" / "StatisticsGen" / "statistics" / str(number)
        directory = pathlib.Path(split_directory(str(uri), "train"))
        directory.mkdir(parents=True)
        if number == 12:
            data = mark_derived(statistics).SerializeToString()
            (directory / STATISTICS_NAME).write_bytes(data)
    return run


def log_of(path, requests, signature="score", code="OK", fraction=1.0):
    config = ServerConfig("m", request_log=str(path), request_log_fraction=fraction)
    log = RequestLog(config, ServerMetrics())
    for text in requests:
        inputs = {"text": np.array([text.encode()], object)}
        log.write("rest", "1", "stable", signature, code, 0.01, 5, inputs, None)


def drift(path, run, *options):
    arguments = ["drift", str(path), "--statistics", str(run), *options]
    result = CliRunner().invoke(cli, arguments)
    return result.exit_code, result.output


def test_requests_like_the_documents_have_not_drifted(tmp_path, run):
    path = tmp_path / "log"
    log_of(path, texts(800, 40, 1))
    log_of(path, texts(800, 2, 2), signature="generate")
    log_of(path, texts(800, 2, 3), code="INVALID_ARGUMENT")  # nobody was answered
    assert "größe" not in path.read_text()
    code, output = drift(path, run, "--signature", "score")
    report = json.loads(output)
    assert code == 0, output
    assert (report["texts"], report["documents"], report["drifted"]) == (800, 2000, [])
    assert set(report["features"]) == {"byte_count", "characters", "words"}
    for measured in report["features"].values():
        assert 0 <= measured["divergence"] < measured["threshold"] < 0.2


def test_shorter_requests_have(tmp_path, run):
    path = tmp_path / "log"
    log_of(path, texts(400, 12, 1))
    with path.open("a") as out:
        out.write('{"code": "OK", "signature": "score", "text_by')  # torn by a crash
    code, output = drift(path, run)
    report = json.loads(output)
    assert code == 1
    assert (report["texts"], report["unreadable_lines"]) == (400, 1)
    assert len(report["drifted"]) == 3
    assert "words" in " ".join(report["drifted"])
    assert report["features"]["words"]["divergence"] > 0.5
    assert drift(path, run, "--threshold", "1")[0] == 0


def test_what_is_missing_is_named(tmp_path, run):
    path = tmp_path / "log"
    code, output = drift(path, run)
    assert (code, "cannot read the request log" in output) == (1, True)
    log_of(path, ["a b"])
    code, output = drift(path, run, "--signature", "embed")
    assert code == 1
    assert "no answered request for embed" in output
    code, output = drift(path, tmp_path / "nothing")
    assert code == 1
    assert "no statistics of the train split" in output
