"""The commands of README and docs run as they stand, each page from top to bottom.

A page is one bash session in a directory of its own: blocks of `sh`, `bash` and `console` (or of no
language, beginning with `$ `), blocks of `python`, and files. Comments of Markdown, on lines of
their own before a block, say what a reader sees or does without being told:

    <!-- not run: WHY -->                     the next block does not run here
    <!-- exits with 1 -->                     the next block fails, as the page tells
    <!-- other terminal, ready when: TEST --> the next block goes on until the page's end
    <!-- file: NAME -->                       the next block is a file of that name
    <!-- run before: COMMANDS -->             commands that no reader sees; they need no block

$FINISHED_RUN is the output directory of a run of the demo with 20 steps, to be copied by `cp -r`.
TOKENMILL_DOCS_RUN=DIR takes one that is there. $TOKENMILL_REPO is this repository.
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass

import pytest
from markdown_it import MarkdownIt

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL = ("sh", "bash", "console")
OTHERS = ("", "text", "toml", "json", "python", "csv", "yaml")
MARK = re.compile(
    r"<!-- (not run|exits with|other terminal, ready when|file|run before):? (\S.*?) ?-->",
    re.DOTALL,
)
# Of seconds each: a page whose commands are all of these is among the fast tests.
FAST = re.compile(
    r"tokenmill (plan|manifests|ingest preview|curate (preview|calibrate))\b"
    r"|tokenmill submit .*--dry-run|tokenmill( [a-z]+)* --(help|version)"
    r"|(make|cat|cd|cp|echo|head|ls|mkdir|mv|printf|sed|tail|test|wc|export|git init)\b"
)
PAGE_SECONDS = 3000


@dataclass(frozen=True)
class Block:
    """A fenced block, or commands in a comment, with what the comments before it say."""

    line: int
    language: str
    text: str
    marks: dict

    @property
    def is_shell(self):
        return self.language in SHELL or (not self.language and self.text.startswith("$ "))

    @property
    def commands(self):
        """What to type: of a console's block, the lines after `$ `, without the output."""
        if not re.search(r"^\$ ", self.text, re.MULTILINE):
            return self.text
        return "".join(
            line.removeprefix("$ ") + "\n"
            for line in re.findall(r"^\$ .*?(?<!\\)$", self.text, re.MULTILINE | re.DOTALL)
        )

    @property
    def runs(self):
        if "not run" in self.marks:
            return False
        return self.is_shell or self.language == "python" or "file" in self.marks


def parse_blocks(text):
    """Find a page's blocks; commands in comments come as blocks of `sh`."""
    found, marks = [], {}
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "fence":
            found.append(Block(token.map[0] + 1, token.info.strip(), token.content, marks))
            marks = {}
        elif token.type == "html_block":
            marks = marks | dict(MARK.findall(token.content))
            if "run before" in marks:
                found.append(Block(token.map[0] + 1, "sh", marks.pop("run before"), {}))
        else:
            assert not marks or token.type in ("inline", "list_item_open"), f"no block: {marks}"
    return found


def name_of(path):
    return path.relative_to(ROOT).as_posix()


BLOCKS = {name_of(path): parse_blocks(path.read_text(encoding="utf-8")) for path in PAGES}
RUNNING = {page: [b for b in blocks if b.runs] for page, blocks in BLOCKS.items()}


def is_fast(blocks):
    """Tell whether all commands of a page's blocks are fast, each alone on its line."""
    lines = [
        line
        for block in blocks
        if block.is_shell
        for line in re.sub(r"\\\n", " ", block.commands).splitlines()
    ]
    words = [line.partition("#")[0].strip() for line in lines]
    return all(FAST.match(line) for line in words if line) and not any(
        block.language == "python" or "other terminal, ready when" in block.marks
        for block in blocks
    )


def session(blocks):
    """Write the bash script of a page."""
    script = [
        "set -e -m -o pipefail",  # -m: each job is a process group, and so killed whole
        "trap 'for job in $(jobs -p); do kill -- -$job || true; done' EXIT",
    ]
    python = []
    for block in blocks:
        script.append(f"echo '@ line {block.line}'")
        if name := block.marks.get("file"):
            script.append(f"printf %s {shlex.quote(block.text)} > {shlex.quote(name)}")
        elif block.language == "python":
            python.append(block.text)  # with those before it: a page has one namespace
            script.append(f"python -c {shlex.quote(chr(10).join(python))}")
        elif ready := block.marks.get("other terminal, ready when"):
            script += [
                f"({block.commands}) &",
                "for second in $(seq 180); do",
                f"  if {ready} >/dev/null 2>&1; then break; fi; kill -0 $!; sleep 1",
                "done",
                ready,
            ]
        elif code := block.marks.get("exits with"):
            script += [
                f"set +e; (set -e; {block.commands}); code=$?; set -e",
                f"if [ $code != {code} ]; then echo exit $code instead of {code}; exit 1; fi",
            ]
        else:
            script.append(block.commands)
    return "\n".join(script) + "\n"


def program(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def run_script(script, directory, **environment):
    """Run a session as a reader would who has made the environment; returns code and output."""
    bin_directory = directory.with_name(f"{directory.name}-bin")
    here = shlex.quote(str(ROOT))
    program(bin_directory / "tokenmill", f'exec {sys.executable} -m pipeline.cli "$@"')
    program(bin_directory / "python", f'exec {sys.executable} "$@"')
    # CI is what runs them; here it is seen that they are there, and what they would do.
    make = shutil.which("make")
    program(bin_directory / "make", f'exec {make} --dry-run -C {here} "$@" >/dev/null')
    directory.mkdir(exist_ok=True)
    output = directory.with_name(f"{directory.name}.txt")
    with open(output, "w", encoding="utf-8") as out:
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={
                **os.environ,
                "PATH": f"{bin_directory}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "TOKENMILL_REPO": str(ROOT),
                **environment,
            },
        )
        try:
            code = process.wait(PAGE_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)  # bash kills its jobs as it goes
                process.wait()
    return code, output.read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The output directory of the demo with 20 steps, pushed whatever it is worth."""
    if given := os.environ.get("TOKENMILL_DOCS_RUN"):
        return os.path.abspath(given)
    directory = tmp_path_factory.mktemp("docs") / "work"
    code, output = run_script(
        "tokenmill run --set train.max_steps=20 --set evaluate.max_bits_per_byte=8 "
        "--set evaluate.beat_baseline=false",
        directory,
    )
    assert code == 0, output
    return str(directory / "runs/demo")


def parameters():
    for page, blocks in RUNNING.items():
        if any(block.is_shell or block.language == "python" for block in blocks):
            marks = [] if is_fast(blocks) else [pytest.mark.slow]
            yield pytest.param(page, id=page, marks=[*marks, pytest.mark.timeout(PAGE_SECONDS)])


@pytest.mark.parametrize("page", parameters())
def test_a_page_runs_from_top_to_bottom(page, tmp_path, request):
    script = session(RUNNING[page])
    wants_run = "FINISHED_RUN" in script
    run = {"FINISHED_RUN": request.getfixturevalue("finished_run")} if wants_run else {}
    code, output = run_script(script, tmp_path / "work", TMPDIR=str(tmp_path), **run)
    assert code == 0, f"{page}, exit code {code}:\n{output[-6000:]}"


@pytest.mark.parametrize("page", BLOCKS)
def test_commands_are_where_they_run_and_json_is_json(page):
    for block in BLOCKS[page]:
        assert block.language in SHELL + OTHERS, f"{page}:{block.line}: else it might escape"
        if block.language == "json" and "not run" not in block.marks:
            json.loads(block.text)
        if not block.is_shell and block.language in ("", "text"):
            # Output, a diagram or a tree: a command among it would never be run.
            assert not re.search(r"^(\$ |(tokenmill|make) [a-z-]+( |$))", block.text, re.M), (
                f"{page}:{block.line} has commands: make it a block of sh"
            )
        if "exits with" in block.marks:
            assert block.marks["exits with"].isdecimal()


def test_what_runs_is_counted():
    counts = Counter()
    for blocks in BLOCKS.values():
        for block in blocks:
            if block.is_shell or block.language == "python":
                counts["run" if block.runs else "not run"] += 1
    print(dict(counts))  # pytest -rP shows it
    assert counts["run"] > 4 * counts["not run"]


PAGE = """
A page.

<!-- run before: mkdir made
touch made/before -->

<!-- file: made/my.toml -->
```toml
a = 1
```

```sh
cat made/my.toml   # what is in it
name=kept
```

<!-- not run: it would fail -->
```bash
false
```

<!-- exits with 3 -->
```sh
(exit 3)
```

<!-- other terminal, ready when: test -e made/ready -->
```sh
touch made/ready
sleep 1000
```

```
$ echo $name \\
  and more
kept and more
```

```python
x = 1
```

```python
print("python has", x)
```

```sh
make test
ls made
```
"""


def test_a_session_does_what_the_comments_say(tmp_path):
    code, output = run_script(session([b for b in parse_blocks(PAGE) if b.runs]), tmp_path / "w")
    assert code == 0, output
    lines = [line for line in output.splitlines() if not line.startswith("@ line")]
    assert lines[:3] == ["a = 1", "kept and more", "python has 1"]
    assert lines[3:] == ["before", "my.toml", "ready"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cat made", "cat unmade"),
        ("<!-- not run: it would fail -->", ""),
        ("exits with 3", "exits with 4"),
        ("touch made/ready", "exit 1"),
        ("make test", "make tset"),
        ("cat made/my.toml ", "false | cat"),
        ("x = 1", "y = 1"),
    ],
)
def test_a_page_that_rots_fails(tmp_path, old, new):
    text = PAGE.replace(old, new, 1)
    assert text != PAGE
    code, _ = run_script(session([b for b in parse_blocks(text) if b.runs]), tmp_path / "w")
    assert code != 0


def test_a_mark_without_a_block_is_refused():
    with pytest.raises(AssertionError, match="no block"):
        parse_blocks("<!-- not run: why -->\n\nText.\n\n# Title\n")


def test_slow_pages_are_told_from_fast_ones():
    def fast(text):
        return is_fast(parse_blocks(f"```sh\n{text}\n```"))

    assert fast("tokenmill plan --params 7B  # it costs\nmake run\n")
    assert fast("tokenmill serve --help")
    assert not fast("tokenmill run")
    assert not fast("tokenmill submit a.json \\\n  --project P")
