"""README and docs do not rot: links lead somewhere, configurations load, commands are there."""

import itertools
import pathlib
import re
import shlex

import click
import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt

from pipeline.cli import cli
from pipeline.config import Config
from pipeline.loader import build_config, load_config
from pipeline.plan.config import PlanConfig

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# <!-- not loaded: WHY --> before a block says why it is no configuration of its own.
NOT_LOADED = re.compile(r"<!-- not loaded: \S.* -->")
COMMAND_ENDS = {";", "&&", "||", "|", "&", "do", "then", "until", "while"}


def tokens(path):
    return parse_markdown(path.read_text(encoding="utf-8"))


def parse_markdown(text):
    return MarkdownIt("commonmark").enable("table").parse(text)


def fences(parsed, *languages):
    """First line and text of the blocks of these languages, without those not to be loaded."""
    before = ""
    for token in parsed:
        wanted = token.type == "fence" and token.info.strip() in languages
        if wanted and not NOT_LOADED.search(before):
            yield token.map[0] + 1, token.content
        before = before + token.content if token.type == "html_block" else ""


def blocks(*languages):
    """Those of all pages, each as a test's parameter."""
    return [
        pytest.param(text, id=f"{path.relative_to(ROOT).as_posix()}:{line}")
        for path in PAGES
        for line, text in fences(tokens(path), *languages)
    ]


def anchors(path):
    """What GitHub and the site call a page's headings."""
    found = {}
    parsed = tokens(path)
    for opening, inline in itertools.pairwise(parsed):
        if opening.type == "heading_open":
            text = "".join(child.content for child in inline.children)
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found[slug] = found.get(slug, -1) + 1
    return {
        slug if not n else f"{slug}-{n}" for slug, last in found.items() for n in range(last + 1)
    }


def links(path):
    for token in tokens(path):
        for child in token.children or ():
            if child.type in ("link_open", "image"):
                yield child.attrs.get("href") or child.attrs["src"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings_that_exist(path):
    broken = []
    for link in links(path):
        if re.match("[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("text", blocks("toml"))
def test_configurations_load(text, tmp_path):
    file = tmp_path / "docs.toml"
    file.write_text(text, encoding="utf-8")
    load_config(config_path=str(file))


@pytest.mark.parametrize("text", blocks("python"))
def test_python_is_python(text):
    compile(text, "docs", "exec")


def commands(text):
    """The arguments of each `tokenmill` in a block of commands, perhaps with their output."""
    text = text.replace("\\\n", " ")
    lines = text.splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        if "tokenmill" not in line:
            continue
        line = re.sub(r"<([a-z_ ]+)>", r"\1", line)  # a placeholder, no redirection
        line = re.sub(r"\$\w+", "1", line)  # a variable of the shell
        line = re.sub(r"\d?(>>?|<)\s*(&\d|[\w./-]+)", "", line)
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # a quote without its end: output
            words = [line]
        yield from simple_commands(words)


def simple_commands(words):
    command = []
    for word in [*words, ";"]:
        if word not in COMMAND_ENDS:
            command.append(word)
            continue
        if command and pathlib.PurePath(command[0]).name == "tokenmill":
            yield command[1:]
        command = []


def parse(arguments):
    """Parse a command as click does, without its being called; returns its name and values."""
    command, rest = cli, list(arguments)
    # With its settings: a command keeps the option --help that its first context gave it.
    context = click.Context(cli, info_name="tokenmill", **cli.context_settings)
    while isinstance(command, click.Group):
        if not rest or rest[0].startswith("-"):
            break
        name = rest.pop(0)
        if name not in command.commands:
            raise click.UsageError(f"no command {context.command_path} {name}")
        command = command.commands[name]
        context = click.Context(command, parent=context, info_name=name, **command.context_settings)
    try:
        context = command.make_context(context.info_name, rest, parent=context.parent)
    except click.exceptions.Exit:  # --help, --version; a mistake is a UsageError
        return context.command_path, {}
    return context.command_path, context.params


FOUND = [
    pytest.param(command, id=f"{block.id} {' '.join(command[:2])}")
    for block in blocks("", "sh")
    for command in commands(block.values[0])
]


@pytest.mark.parametrize("arguments", FOUND)
def test_commands_exist_with_their_options(arguments):
    path, values = parse(arguments)
    if path == "tokenmill run" and values.get("more_inputs"):
        assert values["inputs"], "run takes files after --input only"
    reads_model = any(key.startswith("model.base_model=") for key in values.get("overrides", ()))
    reads_file = reads_model or values.get("ladder")
    if path == "tokenmill plan" and not reads_file:  # the one that needs no data: it is run
        done = CliRunner().invoke(cli, arguments)
        is_over = "which is likely, is over it" in done.output  # a limit that a page shows
        assert done.exit_code == is_over, done.output
    else:
        build_config(Config, {}, "docs", values.get("overrides", ()))


def spans(path):
    """The pieces of code within a page's sentences and tables."""
    for token in tokens(path):
        for child in token.children or ():
            if child.type == "code_inline":
                yield " ".join(child.content.split())


def unknown_command(span):
    """Tell whether the text `tokenmill ..` names a command or an option that is not there."""
    words = shlex.split(span)[1:]
    command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        names = words.pop(0).split("|")  # `tokenmill generate|score TEXT`
        if not command.commands.keys() >= set(names):
            return True
        command = command.commands[names[0]]
    options = {name for parameter in command.params for name in parameter.opts}
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    return bool(used - options - {"--help"})


def is_unknown_key(span):
    """Tell whether `section.key`, perhaps with a value, is of a section and yet no key of it."""
    match = re.fullmatch(r"(\w+)\.(\w+)(?: = .*)?", span)
    if not match or match[1] not in SECTIONS or match[2] in ("json", "model", "py", "toml"):
        return False
    return match[2] not in SECTIONS[match[1]]


def is_missing_path(span):
    """Tell whether a path of the repository, perhaps a pattern or with arguments, leads nowhere."""
    path = span.split()[0]
    if not re.match(rf"({'|'.join(FOLDERS)})/", path) or re.search("[<>]", path):
        return False
    return not any(ROOT.glob(path.rstrip("/")))


SECTIONS = {
    PlanConfig.model_fields[name].alias or name: set(type(section).model_fields)
    for name, section in PlanConfig()
}
FOLDERS = (
    "benchmarks",
    "tokenmill",
    "components",
    "serving",
    "pipeline",
    "data",
    "tests",
    "tools",
    "docs",
    "notebooks",
)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_code_in_sentences_is_there(path):
    found = list(spans(path))
    of_commands = [span for span in found if span.startswith("tokenmill ")]
    assert not [span for span in of_commands if unknown_command(span)]
    assert not [span for span in found if is_unknown_key(span)]
    assert not [span for span in found if is_missing_path(span)]
    pages = re.findall(r"\bdocs/[\w/]+\.md", path.read_text(encoding="utf-8"))
    assert not [page for page in pages if not (ROOT / page).exists()]


def test_code_that_is_not_there_is_found():
    assert not unknown_command("tokenmill generate|score TEXT --server ADDRESS")
    assert unknown_command("tokenmill generte")
    assert unknown_command("tokenmill gc --keeep 3")
    assert is_unknown_key("train.learning_rat = 1e-3")
    assert not is_unknown_key("tokenizer.json")
    assert is_missing_path("tokenmill/fils.py")
    assert not is_missing_path("components/*/*.py")


def test_commands_are_found():
    assert {command.values[0][0] for command in FOUND} >= {"run", "plan", "serve", "gc", "why"}
    assert list(commands("$ tokenmill plan --json\nout\n")) == [["plan", "--json"]]
    text = "x && .venv/bin/tokenmill run --set a=1 \\\n  --no-cache >> y 2>&1\ntokenmill gc z  # w"
    assert list(commands(text)) == [["run", "--set", "a=1", "--no-cache"], ["gc", "z"]]
    assert list(commands("until tokenmill run; do sleep 1; done")) == [["run"]]


@pytest.mark.parametrize(
    "arguments",
    [["rum"], ["run", "--inptu", "x"], ["export", "onnx"], ["gc"], ["why", "--row", "a"]],
)
def test_a_wrong_command_is_refused(arguments):
    with pytest.raises(click.UsageError):
        parse(arguments)
