"""The benchmark tasks that are shipped: made from own text, disjoint, and what chance scores."""

import collections
import json
import pathlib
import subprocess
import sys

import pytest
import yaml

from tokenmill.benchmark_tasks import SHIPPED_TASKS, find_tasks, read_task
from tokenmill.errors import TokenmillError

ROOT = pathlib.Path(__file__).parents[2]
DATA = ROOT / "data" / "benchmarks"


def items(name):
    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def whole_passages():
    """The beginning of each passage, by task; a continuation is cut short."""
    for item in items("cloze"):
        yield "cloze", f"{item['context']} {item['word']}"
    for item in items("continuation"):
        yield "continuation", f"{item['context']} {item['choices'][item['answer']]}"
    for item in items("bits_per_byte"):
        yield "bits_per_byte", item["text"]


def test_files_are_what_the_tool_makes(tmp_path):
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("made", ROOT / "tools" / "benchmark_tasks.py")
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    known = subprocess.run(
        ["git", "-C", str(ROOT), "cat-file", "-e", tool.SOURCE_COMMIT], capture_output=True
    )
    if known.returncode:
        pytest.skip("a clone without the commit that the texts are made from")
    command = [sys.executable, str(ROOT / "tools" / "benchmark_tasks.py"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    for name in SHIPPED_TASKS:
        made, kept = (folder / f"{name}.jsonl" for folder in (tmp_path, DATA))
        assert made.read_bytes() == kept.read_bytes()


def test_no_passage_is_twice():
    beginnings = collections.defaultdict(list)
    for task, text in whole_passages():
        beginnings[" ".join(text.split(" ")[:12])].append(task)
    assert len(beginnings) > 500
    assert {text: tasks for text, tasks in beginnings.items() if len(tasks) > 1} == {}


def test_no_passage_is_in_the_embedded_corpus(tmp_path):
    from data.embedded_corpus import ensure_embedded_corpus

    def runs_of_words(text):
        words = text.split()
        return {tuple(words[i : i + 13]) for i in range(len(words) - 12)}

    ours = {run: task for task, text in whole_passages() for run in runs_of_words(text)}
    assert len(ours) > 5000
    with open(ensure_embedded_corpus().path, encoding="utf-8") as lines:
        for line in lines:
            assert not ours.keys() & runs_of_words(json.loads(line)["text"])


def test_cloze_words_stand_in_the_passage_and_chance_is_the_most_frequent():
    asked = items("cloze")
    for item in asked:
        assert item["word"] in item["context"]
        assert item["word"].isalpha()
    (_, most), *_ = collections.Counter(item["word"] for item in asked).most_common(1)
    assert read_task(str(DATA / "cloze.yaml")).chance == {"acc": most / len(asked)}


def test_continuations_differ_and_all_places_are_right_sometimes():
    asked = items("continuation")
    for item in asked:
        assert len(set(item["choices"])) == 4
        assert all(len(choice.split(" ")) == 10 for choice in item["choices"])
    places = collections.Counter(item["answer"] for item in asked)
    assert set(places) == {0, 1, 2, 3}
    assert max(places.values()) / len(asked) < 0.35  # no answer by place


@pytest.mark.parametrize("name", SHIPPED_TASKS)
def test_each_task_says_what_chance_scores(name):
    task = read_task(str(DATA / f"{name}.yaml"))
    assert task.name == name
    assert set(task.chance) <= set(task.metrics)
    assert task.chance
    description = yaml.safe_load((DATA / f"{name}.yaml").read_text())["metadata"]["description"]
    assert all(f"{value:g}" in description for value in task.chance.values())


def test_texts_of_a_task_are_all_strings_of_its_records():
    (task,) = find_tasks(["continuation"], "--tasks")
    texts = list(task.texts())
    assert len(texts) == 150 * 5
    assert items("continuation")[0]["context"] in texts
    assert items("continuation")[-1]["choices"][3] in texts


TASK = "task: mine\ndataset_path: json\ndataset_kwargs: {data_files: {test: [a.jsonl]}}\n"


def test_a_file_of_the_users_own(tmp_path):
    (tmp_path / "mine.yaml").write_text(TASK + "process_docs: !function other.module\n")
    (tmp_path / "a.jsonl").write_text('{"a": "one", "b": {"c": ["two", 3]}}\n')
    (task,) = find_tasks([str(tmp_path / "mine.yaml")], "--tasks")
    assert (task.name, list(task.texts()), task.metrics) == ("mine", ["one", "two"], ())
    before = task.fingerprint()
    (tmp_path / "a.jsonl").write_text('{"a": "other"}\n')
    assert task.fingerprint() != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "no YAML"),
        ("group: x\n", "expected a task of lm-evaluation-harness with a key task"),
        ("task: x\nmetadata: {chance: {acc: high}}\n", "expected a number by metric"),
    ],
)
def test_a_file_that_is_no_task_is_an_error(tmp_path, content, message):
    path = tmp_path / "x.yaml"
    path.write_text(content)
    with pytest.raises(TokenmillError, match=message) as error:
        find_tasks([str(path)], "--tasks")
    assert str(path) in str(error.value)


def test_unknown_and_double_tasks_are_errors(tmp_path):
    with pytest.raises(TokenmillError, match=r"--tasks: there is no task 'cloz' \(did you mean cl"):
        find_tasks(["cloz"], "--tasks")
    with pytest.raises(TokenmillError, match="No such file"):
        find_tasks([str(tmp_path / "nowhere.yaml")], "--tasks")
    (tmp_path / "other.yaml").write_text(TASK.replace("mine", "cloze"))
    with pytest.raises(TokenmillError, match="are both named cloze"):
        find_tasks(["cloze", str(tmp_path / "other.yaml")], "--tasks")
    remote = tmp_path / "remote.yaml"
    remote.write_text("task: remote\ndataset_path: someone/texts\n")
    (task,) = find_tasks([str(remote)], "curate.benchmark_tasks")
    with pytest.raises(TokenmillError, match="not in local JSON files"):
        list(task.texts())
