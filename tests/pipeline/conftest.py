"""One real run of the true pipeline on a slice of the embedded corpus, shared by the tests."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import pytest

from data.embedded_corpus import ensure_embedded_corpus

# Small enough for a minute on two cores, large enough to learn something.
CONFIG = """
[run]
name = "slice"

[corpus]
eval_fraction = 0.1
shards = 2
max_quarantine_fraction = 0.3  # one file of four is noise

[curate]
rules = "code-docs"
deny_urls = ["denied.example/private/"]

[tokenizer]
vocab_size = 1200

[pack]
shards = 2

[model]
layers = 2
d_model = 96
heads = 4
d_ff = 384
sequence_length = 64

[train]
global_batch_size = 32
max_steps = 250
epochs = 3
learning_rate = 4e-3

[evaluate]
max_bits_per_byte = 3.5
"""


@dataclasses.dataclass
class Run:
    """A run's outcome as a user sees it, and where it left its files."""

    exit_code: int
    output: str
    stdout: str
    home: pathlib.Path

    def report(self) -> dict:
        logs = sorted((self.home / "logs").iterdir())
        return json.loads((logs[-1] / "report.json").read_text())

    def report_text(self, number: int = -1) -> str:
        """All tables of a run of this directory, of the newest if none is named: report.txt."""
        return (sorted((self.home / "logs").iterdir())[number] / "report.txt").read_text()

    @property
    def said(self) -> str:
        """The output without its line breaks: sentences are wrapped."""
        return " ".join(self.output.split())

    def step_lines(self) -> dict[str, str]:
        """Each step's line, by name."""
        lines = [line for line in self.output.splitlines() if line.startswith(("✓", "✗"))]
        return {line.split()[1]: line for line in lines}


class Workspace:
    """A configuration, a corpus and an output directory."""

    bad_lines = ('{"text": "an object that does not end', '{"id": "no-text"}')

    def __init__(self, root: pathlib.Path, corpus: pathlib.Path):
        self.root, self.corpus, self.home = root, corpus, root / "home"
        self.temporary = root / "temporary"
        self.temporary.mkdir()
        self.config = root / "config.toml"
        self.config.write_text(CONFIG)

    def _command(self, *arguments: str) -> list[str]:
        return [
            *(sys.executable, "-m", "pipeline.cli", "run", "--config", str(self.config)),
            *("--input", str(self.corpus), "--output-dir", str(self.home)),
            *arguments,
        ]

    def run(self, *arguments: str) -> Run:
        """Runs to the end; later arguments win over the workspace's own."""
        result = subprocess.run(
            self._command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            # Bytecode is written, as it is for a user: AutoGraph's must not stay.
            env={**os.environ, "TMPDIR": str(self.temporary), "PYTHONDONTWRITEBYTECODE": ""},
        )
        return Run(result.returncode, result.stdout + result.stderr, result.stdout, self.home)

    def start(self, *arguments: str) -> subprocess.Popen:
        """Starts a run; its output can be read by line."""
        return subprocess.Popen(
            self._command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


def slice_of_embedded_corpus(every: int) -> list[dict]:
    corpus = ensure_embedded_corpus()
    with open(corpus.path, encoding="utf-8") as lines:
        return [json.loads(line) for i, line in enumerate(lines) if i % every == 0]


def german_texts() -> list[str]:
    """Documents in another language than those of the embedded corpus, all different."""
    nouns = "Ausschuss Sitzung Woche Verfahren Beschluss Gemeinde Wasser Leitung Anlage Prüfung"
    words = nouns.split()
    return [
        " ".join(
            f"Der Bericht über {words[(i + j) % 10]} und {words[(i * j + 3) % 10]} wurde am "
            f"{j + 1}. Tag der {i + 1}. Woche von der Verwaltung nicht ohne Gründe abgelehnt."
            for j in range(6)
        )
        for i in range(40)
    ]


@pytest.fixture(scope="session", autouse=True)
def planted_secrets(tmp_path_factory) -> list[bytes]:
    """Secrets where users have them: in the environment of every run, and in a file it names."""
    credentials = tmp_path_factory.mktemp("secrets") / "credentials.json"
    credentials.write_text('{"private_key": "planted-in-a-file-41f7"}')
    planted = {
        "TOKENMILL_METADATA_PASSWORD": "planted-password-9c2e",
        "AWS_SECRET_ACCESS_KEY": "planted-key-77ab",
        "HF_TOKEN": "planted-token-c01d",
    }
    before = dict(os.environ)
    os.environ.update(planted, GOOGLE_APPLICATION_CREDENTIALS=str(credentials))
    yield [b"planted-in-a-file-41f7", *(value.encode() for value in planted.values())]
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Workspace:
    root = tmp_path_factory.mktemp("pipeline")
    corpus = root / "corpus"
    corpus.mkdir()
    records = slice_of_embedded_corpus(every=12)
    # The package with most copies, whole, so that there are duplicates to drop.
    records = [{**r, "url": f"https://docs.example/{i}"} for i, r in enumerate(records)]
    denied = {"id": "denied", "url": "https://www.denied.example/private/1", "title": "A secret"}
    lines = [json.dumps({**denied, "text": "The text of a page that nobody is to learn from."})]
    lines += [json.dumps(r) for r in records]
    lines += [json.dumps({**r, "id": f"copy-{r['id']}"}) for r in records[:40]]
    lines += [json.dumps({"text": text, "source": "german"}) for text in german_texts()]
    lines += Workspace.bad_lines
    (corpus / "documents.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (corpus / "notes.txt").write_bytes("Café: text in a file of its own. ".encode() * 20)
    (corpus / "latin1.txt").write_bytes("Un café crème, s'il vous plaît. ".encode("cp1252") * 20)
    (corpus / "noise.txt").write_bytes(bytes(range(0x80, 0x100)) * 20)
    return Workspace(root, corpus)


@pytest.fixture(scope="session")
def first_run(workspace) -> Run:
    run = workspace.run()
    assert run.exit_code == 0, run.output + _log_tail(run)
    return run


def _log_tail(run: Run) -> str:
    logs = sorted((run.home / "logs").iterdir())
    return (logs[-1] / "tokenmill.log").read_text()[-4000:] if logs else ""
