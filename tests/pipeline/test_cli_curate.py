"""`tokenmill curate`: rules, preview and inspect, each in a process of its own."""

import itertools
import json
import random
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import tokenmill
from ml_metadata.proto import metadata_store_pb2

from components.curate.counts import OutcomeCounts, summarize
from components.curate.preview import neighbors
from components.curate.rules import LINE_RULES, RULE_SETS, RULES
from components.ingest.transforms import split_of
from tests.curate.test_quality import prose, spam
from tokenmill.contracts.curation import CURATION_NAME, DroppedDocument, write_curation
from tokenmill.metadata.store import open_store
from tokenmill.records.tfrecord import write_tfrecords


def shown(*arguments):
    """What a command that succeeds prints, and nothing beside it."""
    result = tokenmill("curate", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def refused(*arguments):
    """The message of a command that fails."""
    result = tokenmill("curate", *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    return result.stderr


def lines_with(word, text):
    return [line for line in text.splitlines() if word in line.split()]


# ---- rules


def test_rules_lists_every_rule_with_its_thresholds_within_100_columns():
    output = shown("rules")
    assert max(map(len, output.splitlines())) <= 100
    for rule in (*LINE_RULES, *RULES):
        (line,) = lines_with(rule.setting, output)
        assert line.split()[0] == rule.reason
        sign = "<" if rule.drop_if == "below" else ">"
        cells = line.split()[2:]
        expected = []
        for rule_set in RULE_SETS[:3]:
            threshold = rule.thresholds.get(rule_set)
            number = (
                "100k" if threshold == 1e5 else f"{threshold:,g}" if threshold is not None else ""
            )
            expected += [sign, number] if number else ["off"]
        assert cells == expected
        assert rule.source in output


def test_rules_of_one_set():
    for rule_set in ("code-docs", "c4"):
        output = shown("rules", "--rules", rule_set)
        listed = [rule for rule in (*LINE_RULES, *RULES) if lines_with(rule.setting, output)]
        assert listed == [r for r in (*LINE_RULES, *RULES) if rule_set in r.thresholds]
    message = refused("rules", "--rules", "webb")
    assert "did you mean web?" in message
    assert "technical-prose" in message


def test_rules_of_a_language():
    german = shown("rules", "--rules", "fineweb-2", "--language", "de")
    (line,) = lines_with("max_mean_word_length", german)
    assert line.split()[2:] == [">", "15"]
    (line,) = lines_with("max_mean_word_length", shown("rules", "--rules", "fineweb-2"))
    assert line.split()[2:] == [">", "10"]
    assert "--language deu: there is no such one" in refused("rules", "--language", "deu")


# ---- preview of a learned score


def test_preview_learns_a_score_and_shows_what_thresholds_keep(tmp_path):
    records = [
        {"id": f"{kind.__name__}-{i}", "text": kind(i), "label": kind.__name__, "source": "web"}
        for i in range(300)
        for kind in (prose, spam)
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, records)) + "\n")
    options = [path, "--rules", "none", "--set", "corpus.label_field=label", "--set",
               'curate.quality.positive=["label:prose"]', "--set", "curate.quality.min_score=0.5",
               "--set", "curate.quality.top_share=0.4",
               "--set", "corpus.eval_fraction=0.1"]  # fmt: skip
    found = json.loads(shown("preview", *options, "--json"))
    quality = found["quality"]
    held_out = sum(split_of(r["text"].encode(), 0.1) == "eval" for r in records)
    assert quality["positive"]["documents"] + quality["negative"]["documents"] == (
        600 - held_out - sum(quality["left_out"].values())
    )
    assert quality["roc_auc"] > 0.99
    assert sum(quality["histogram"]["documents"]) == quality["scored"]["documents"] == 600
    (at_half,) = (line for line in quality["thresholds"] if line["is_set"])
    dropped = found["dropped"]["low_quality"]["documents"]
    assert at_half["documents"] == pytest.approx(1 - dropped / 600)
    assert 280 < dropped < 320
    assert at_half["recall"] > 0.9
    assert at_half["precision"] > 0.9
    kept = [line["documents"] for line in quality["thresholds"]]
    assert kept == sorted(kept, reverse=True)
    top = quality["top_shares"]["web"]
    assert top["threshold"] > 0.5
    assert 0.4 <= top["bytes"] < 0.42
    output = shown("preview", *options)
    assert max(map(len, output.splitlines())) <= 100
    assert "Learned quality of 600 documents" in output
    assert lines_with("precision", output)


# ---- calibrate


def test_calibrate_writes_thresholds_that_a_preview_takes(tmp_path):
    words = [
        "der",
        "Wagen",
        "steht",
        "vor",
        "dem",
        "Haus",
        "und",
        "die",
        "Leute",
        "warten",
        "auf",
        "Regen",
        "nicht",
        "weil",
        "Wind",
    ]
    rng = random.Random(1)
    texts = [" ".join(rng.choices(words, k=60)) + "." for _ in range(150)]
    texts += ["The weather of a river was calm and quiet today with that."] * 20
    lines = [json.dumps({"id": f"{i:03}", "text": text}) for i, text in enumerate(texts)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines) + "\n")
    out = tmp_path / "thresholds.toml"
    output = shown("calibrate", tmp_path / "texts.jsonl", "--rules", "web", "--out", out)
    assert max(map(len, output.splitlines())) <= 100
    assert "170 documents; rules: web; method: tail" in output
    assert "en 20 documents: fewer than 100, left out" in output
    assert "thresholds written" in output
    (row,) = lines_with("max_mean_word_length", output)
    derived = float(row.split()[-2])
    assert f"max_mean_word_length = {derived:g}" in out.read_text()
    found = json.loads(
        shown("preview", tmp_path / "texts.jsonl", "--config", out, "--rules", "web", "--json")
    )
    dropped = {name: numbers["documents"] for name, numbers in found["dropped"].items()}
    assert dropped.get("long_words", 0) <= 1
    (rule,) = (rule for rule in found["tuning"] if rule["setting"] == "max_mean_word_length")
    assert rule["threshold"]["value"] is None  # it differs by language
    assert rule["looser"] is None

    as_json = json.loads(shown("calibrate", tmp_path / "texts.jsonl", "--rules", "web", "--json"))
    assert as_json["languages"]["de"]["documents"] == 150
    message = refused("calibrate", tmp_path / "texts.jsonl", "--method", "quantile")
    assert "20 documents are in en" in message
    few = shown("calibrate", tmp_path / "texts.jsonl", "--min-documents", "1000")
    assert "No language to calibrate has 1,000 documents" in few
    none = tmp_path / "none.toml"
    message = refused(
        "calibrate", tmp_path / "texts.jsonl", "--min-documents", "1000", "--out", none
    )
    assert "none.toml is not written" in message
    assert not none.exists()
    message = refused("calibrate", tmp_path / "texts.jsonl", "--reference", "deu")
    assert "--reference deu: there is no such one" in message


# ---- preview


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """400 sound documents, 40 short ones, 10 with brackets, a German one, a broken line."""
    root = tmp_path_factory.mktemp("corpus") / "texts"
    root.mkdir()
    rng = random.Random(1)
    vocabulary = ["the", "weather", "of", "a", "river", "was", "calm", "and", "quiet", "today"]

    def sentence(count):
        return " ".join(rng.choices(vocabulary, k=count)) + "."

    records = [{"id": f"sound-{i}", "text": sentence(40), "source": "web"} for i in range(400)]
    records += [{"id": f"short-{i}", "text": sentence(5), "source": "web"} for i in range(40)]
    records += [
        {"id": f"code-{i}", "text": "{ " + sentence(40), "title": f"Code {i}"} for i in range(10)
    ]
    german = "Das Wetter war schön, und so gingen wir mit den Hunden lange am Fluss entlang "
    german += "nach Hause, bis es Abend wurde."
    records.append({"id": "german", "text": "An ann@example.org: " + german})
    rng.shuffle(records)
    lines = [json.dumps(record) for record in records] + ['{"text": "broken']
    (root / "a.jsonl").write_text("\n".join(lines) + "\n")
    return root


LOOSE = ("--rules", "none", "--set", "curate.min_words=20", "--set", "curate.max_curly_brackets=0")


def test_preview_counts_and_explains(corpus):
    output = shown("preview", corpus, *LOOSE)
    assert max(map(len, output.splitlines())) <= 100
    assert "451 of 451 documents in 1 file(s)" in output
    assert "1 records cannot be read" in output
    assert "a.jsonl:452: invalid_json" in " ".join(output.split())  # a long path wraps
    assert lines_with("kept", output)[0].split()[:3] == ["kept", "401", "88.9%"]
    assert lines_with("too_few_words", output)[0].split()[:3] == ["too_few_words", "40", "8.9%"]
    assert lines_with("curly_brackets", output)[0].split()[1] == "10"
    assert "5 < 20" in output
    assert "1 > 0" in output
    assert len(lines_with("Code", output)) == 2
    # Quantiles of the number of words: 5 in 40 of 451, 40 or 41 in nearly all others.
    tuning = output[output.index("Values in the sample") :]
    quantiles, drops = lines_with("too_few_words", tuning)
    assert quantiles.split() == ["too_few_words", "5", "5", "40", "40", "40", "40", "41"]
    cells = drops.replace("<", "").split()
    assert cells[1:3] + cells[4:6] + cells[7:9] == ["20", "8.9%", "10", "8.9%", "30", "9.1%"]


def test_preview_as_json_balances_and_samples_the_same_every_time(corpus):
    whole = json.loads(shown("preview", corpus, *LOOSE, "--json"))
    for key in ("documents", "bytes"):
        dropped = sum(numbers[key] for numbers in whole["dropped"].values())
        assert whole["sample"][key] == whole["kept"][key] + dropped
    assert whole["sample"]["documents"] == whole["documents_read"] == 451
    assert whole["unreadable_records"] == 1
    (words, brackets) = whole["tuning"]
    assert words["setting"] == "min_words"
    assert words["threshold"]["documents"] == pytest.approx(40 / 451)
    assert words["stricter"] == {**words["stricter"], "value": 30.0}
    assert words["stricter"]["documents"] == pytest.approx(41 / 451)
    assert brackets["stricter"] is None
    assert all(len(examples) == 2 for examples in whole["examples"].values())

    part = shown("preview", corpus, *LOOSE, "--json", "--sample", "100")
    assert json.loads(part)["sample"]["documents"] == 100
    assert 75 <= json.loads(part)["kept"]["documents"] <= 97
    lines = (corpus / "a.jsonl").read_text().splitlines()
    other = corpus.parent / "shuffled" / "texts"
    other.mkdir(parents=True)
    (other / "a.jsonl").write_text("\n".join([*lines[200:], *lines[:200]]) + "\n")
    moved = json.loads(shown("preview", other, *LOOSE, "--json", "--sample", "100"))
    here = json.loads(part)
    for key in ("sample", "kept", "dropped", "examples", "tuning"):
        # Records without a source take the name of their directory, wherever that is.
        assert moved[key] == here[key]


def test_preview_by_language_with_masks_and_one_reason(corpus):
    # A low score, since the other documents are random words: English, but not for certain.
    sets = ('languages=["en"]', "min_language_score=0.2", 'mask=["email"]')
    language = [word for item in sets for word in ("--set", f"curate.{item}")]
    output = shown("preview", corpus, *LOOSE, *language, "--reason", "wrong_language")
    assert lines_with("wrong_language", output)[0].split()[1] == "1"
    assert "  german  (texts)" in output
    assert "0 < 0.2" in output
    assert "<EMAIL>" in output
    assert "masked: 1 email" in output
    assert "too_few_words" not in output


def test_preview_by_lists(corpus, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("# of one document\nabend wurde\n")
    options = ("--set", f"curate.deny_words=@{words}", "--set", "curate.licenses=MIT")
    output = shown("preview", corpus, "--rules", "none", *options)
    assert lines_with("no_license", output)[0].split()[1] == "451"
    output = shown("preview", corpus, "--rules", "none", *options[:2])
    assert lines_with("denied_word", output)[0].split()[1] == "1"
    assert "“abend wurde” is on the list" in output
    found = shown("preview", corpus, "--rules", "none", *options[:2], "--json")
    assert json.loads(found)["examples"]["denied_word"][0]["matched"] == "abend wurde"
    words.unlink()
    message = refused("preview", corpus, *options)
    assert f"curate.deny_words: {words}: cannot be read: No such file" in message
    message = refused("preview", corpus, "--set", 'curate.urls=["a b"]')
    assert "curate.urls" in message
    assert "expected a host, example.org" in message


def test_preview_takes_the_rules_of_the_configuration(corpus, tmp_path):
    config = tmp_path / "mine.toml"
    config.write_text('[corpus]\ntext_field = "id"\n[curate]\nrules = "none"\nmin_words = 2\n')
    found = json.loads(shown("preview", corpus, "--config", config, "--json"))
    assert found["dropped"]["too_few_words"]["documents"] == 451  # ids are one word


def test_preview_reads_parquet_and_says_what_a_run_would_stop_for(tmp_path):
    texts = ["Der Wagen steht vor dem Haus und die Leute warten auf den Regen, der nicht kommt. "]
    table = pa.table(
        {"text": [f"{texts[0] * 4} {i}" for i in range(20)], "id": list(map(str, range(20)))}
    )
    pq.write_table(table, tmp_path / "german.parquet")
    output = shown("preview", tmp_path / "german.parquet", "--rules", "technical-prose")
    assert lines_with("kept", output)[0].split()[:3] == ["kept", "0", "0"]
    assert "duplicate_5grams drops 100% of all (20 of 20 documents)" in " ".join(output.split())
    loose = "curate.max_duplicate_5gram_character_fraction=off"
    found = json.loads(
        shown("preview", tmp_path / "german.parquet", "--set", loose, "--json", "--rules", "none",
              "--set", "curate.min_stop_words=2", "--set", "curate.languages=de")
    )  # fmt: skip
    assert found["kept"]["documents"] == 20
    assert found["remarks"] == []


def test_preview_says_what_is_wrong(corpus, tmp_path):
    assert "nowhere: no such file" in refused("preview", tmp_path / "nowhere")
    message = refused("preview", corpus, "--reason", "few_word")
    assert "did you mean too_few_words?" in message
    assert "wrong_language" in message
    assert "unknown key curate.min_wordz" in refused(
        "preview", corpus, "--set", "curate.min_wordz=1"
    )
    assert "there is no such one" in refused("preview", corpus, "--rules", "strict")
    (tmp_path / "bad.jsonl").write_text("no JSON\n")
    message = refused("preview", tmp_path / "bad.jsonl")
    assert "no document can be read" in message
    assert "bad.jsonl:1: invalid_json" in message


@pytest.mark.parametrize("command", [("curate", "preview"), ("ingest", "preview")])
def test_what_has_no_text_is_named_as_it_was_given(command, tmp_path):
    result = tokenmill(*command, tmp_path)
    assert result.returncode == 1
    assert f"PATH {tmp_path}: no such file, and no directory with text files" in result.stderr


def test_neighbors_of_a_threshold_lie_on_their_sides():
    """All rules, and the thresholds that a rule of its kind can have."""
    for rule, threshold in itertools.product(RULES, [0.0, 0.01, 0.12, 0.67, 0.9, 1, 2, 12, 1e5]):
        below, above = neighbors(rule, threshold)
        if rule.drop_if == "above":
            below, above = above, below
        assert (below is None) == (threshold == 0)
        assert below is None or 0 <= below < threshold
        assert above is None or above > threshold
        assert not ("fraction" in rule.setting and above is not None and above > 1)
        assert above is not None or threshold >= 1


# ---- inspect

NODE = "demo.Curator"


class Store:
    """A metadata store as TFX leaves it, of Curator executions only."""

    def __init__(self, home):
        self.home = home
        self.store = open_store(str(home / "metadata.sqlite"))

    def _type(self, kind, name):
        made = getattr(metadata_store_pb2, f"{kind}Type")(name=name)
        return getattr(self.store, f"put_{kind.lower()}_type")(made)

    def artifact(self, rejected, kept=((("train", "web"), 5),)):
        """Writes an artifact of rejected documents; returns its id."""
        uri = self.home / "artifacts" / str(random.randrange(10**9))
        for shard in range(2):
            path = str(uri / f"dropped-{shard:05d}-of-00002.gz")
            write_tfrecords(path, [r.to_line() for r in rejected[shard::2]], gzip=True)
        counts = {(*key, "kept"): OutcomeCounts(n, 10 * n, 10 * n, 0) for key, n in kept}
        for r in rejected:
            key = (r.split, r.source.decode(), r.reason)
            before = counts.get(key, OutcomeCounts(0, 0, 0, 0))
            counts[key] = OutcomeCounts(before.documents + 1, before.raw_bytes + r.raw_bytes, 0, 0)
        write_curation(str(uri), summarize(counts.items()))
        artifact = metadata_store_pb2.Artifact(
            type_id=self._type("Artifact", "components.DroppedDocuments"),
            uri=str(uri),
            state=metadata_store_pb2.Artifact.LIVE,
        )
        return self.store.put_artifacts([artifact])[0]

    def run(self, name, artifact, state="COMPLETE"):
        """A run whose Curator gave this artifact; None if it failed."""
        contexts = []
        for kind, context_name in (("pipeline_run", name), ("node", NODE)):
            context = self.store.get_context_by_type_and_name(kind, context_name)
            if context is None:
                context = metadata_store_pb2.Context(
                    type_id=self._type("Context", kind), name=context_name
                )
                context.id = self.store.put_contexts([context])[0]
            contexts.append(context.id)
        execution = metadata_store_pb2.Execution(
            type_id=self._type("Execution", "components.curate.component.Curator"),
            last_known_state=getattr(metadata_store_pb2.Execution, state),
        )
        execution_id = self.store.put_executions([execution])[0]
        if artifact is not None:
            event = metadata_store_pb2.Event(
                artifact_id=artifact,
                execution_id=execution_id,
                type=metadata_store_pb2.Event.OUTPUT,
            )
            event.path.steps.add().key = "dropped"
            event.path.steps.add().index = 0
            self.store.put_events([event])
        self.store.put_attributions_and_associations(
            [],
            [
                metadata_store_pb2.Association(execution_id=execution_id, context_id=context)
                for context in contexts
            ],
        )


def rejects(count, reason, source, **changed):
    return [
        DroppedDocument(
            **{
                "split": "train",
                "doc_id": f"{reason}-{source}-{i}".encode(),
                "source": source.encode(),
                "excerpt": f"[bold] the text\nof document {i} " + "and so on " * 15,
                "raw_bytes": 100,
                "reason": reason,
                "value": 0.93,
                "threshold": 0.8,
                "kept_copy": b"",
                **changed,
            }
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Three runs: the newest failed, the one before took its documents from the first."""
    store = Store(tmp_path_factory.mktemp("home"))
    first = store.artifact(
        rejects(30, "near_duplicate", "web", kept_copy=b"the-original")
        + rejects(4, "near_duplicate", "books", kept_copy=b"the-original")
        + rejects(
            2,
            "too_few_words",
            "books",
            value=3.0,
            threshold=10.0,
            split="eval",
            metadata=b'{"title": "Of [bold] books", "url": "https://e.org/1"}',
        )
    )
    second = store.artifact(rejects(1, "curly_brackets", "web"))
    store.run("2024-01", first)
    store.run("2024-02", second)
    store.run("2024-03", first, state="CACHED")
    store.run("2024-04", None, state="FAILED")
    return store.home


def test_inspect_shows_counts_first_and_samples_of_the_newest_run(home):
    output = shown("inspect", home)
    lines = output.splitlines()
    assert lines[0] == "Dropped in run 2024-03:"
    assert lines_with("near_duplicate", output)[0].split() == ["near_duplicate", "34", "3,400"]
    assert lines_with("too_few_words", output)[0].split() == ["too_few_words", "2", "200"]
    assert output.count("(web, train)") + output.count("(books, train)") == 3
    assert output.count("(books, eval)") == 2
    assert output.count("0.93 >= 0.8, copy of the-original") == 3
    assert output.count("3 < 10") == output.count("Of [bold] books, https://e.org/1") == 2
    assert "[bold] the text of document" in output
    assert max(map(len, lines)) <= 100


def test_inspect_filters_by_reason_and_source(home):
    only = ("--source", "books", "--reason", "near_duplicate", "--limit", "50")
    output = shown("inspect", home, *only)
    assert "source books" in output
    assert lines_with("near_duplicate", output)[0].split()[1] == "4"
    assert output.count("(books, train)") == output.count("copy of the-original") == 4
    assert "(books, eval)" not in output
    assert "(web" not in output


def test_inspect_names_the_reasons_and_sources_there_are(home):
    message = refused("inspect", home, "--reason", "near_duplicates")
    assert "did you mean near_duplicate?" in message
    assert "there are: near_duplicate, too_few_words." in message
    assert "has: books, web." in refused("inspect", home, "--source", "wab")


def test_inspect_without_a_run(tmp_path):
    assert "no metadata.sqlite" in refused("inspect", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    store = Store(tmp_path)
    store.run("2024-01", None, state="FAILED")
    assert "no run here has come through" in refused("inspect", tmp_path)


def test_inspect_a_run_whose_files_are_gone(tmp_path):
    store = Store(tmp_path)
    artifact = store.artifact(rejects(1, "symbols", "web"))
    store.run("2024-01", artifact)
    (uri,) = (tmp_path / "artifacts").iterdir()
    (uri / CURATION_NAME).unlink()
    assert "is gone" in refused("inspect", tmp_path)


def test_inspect_reads_what_a_real_run_left(first_run):
    output = shown("inspect", first_run.home, "--limit", "1")
    lines = first_run.report_text(0).splitlines()
    (curated,) = [line for line in lines if line.startswith("✓ Curator ")]
    counted = [line.split() for line in output.split("\n\n")[0].splitlines()[2:]]
    assert len(counted) >= 2
    for reason, documents, _ in counted:
        assert f"{documents} {reason}" in curated
    assert lines_with("copy", output)


def test_curate_commands_start_without_tensorflow():
    code = (
        "import sys, pipeline.cli\n"
        "try: pipeline.cli.cli(['curate', 'rules'])\n"
        "except SystemExit: pass\n"
        "assert not {'tensorflow', 'tfx', 'apache_beam'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
