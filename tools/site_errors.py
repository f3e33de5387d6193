"""Makes the site's page of error messages from the source: each message, and what to do.

Looked for are the places where a TokenmillError, or an error derived from it, is made with its
words at hand. What a message takes from the run stands in braces, by the last name in it.
"""

import ast
import html
import pathlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ("pipeline", "components", "serving", "tokenmill", "data")
BASE = "TokenmillError"


@dataclass(frozen=True)
class Message:
    """One message in the source.

    Attributes:
        path: Its file, from the root of the repository.
        text: What happened.
        hint: What to do; empty where there is not one thing to do, or the text says it.
    """

    path: str
    text: str
    hint: str


def errors_page() -> str:
    """List all messages by the folder of their source."""
    lines = [
        "# Error messages",
        "",
        "What `tokenmill` prints after `error:`, and what to do. Words in braces are of your run: "
        "search for others.",
    ]
    folder = ""
    for message in messages():
        parts = pathlib.PurePosixPath(message.path).parts
        if (here := "/".join(parts[:2])) != folder:
            folder = here
            lines += ["", f"## {folder}", "", "| message | what to do |", "| --- | --- |"]
        lines.append(f"| {_cell(message.text)} | {_cell(message.hint)} |")
    return "\n".join(lines) + "\n"


def messages() -> list[Message]:
    """Find the messages, each once, by file and line, without those that are another error's."""
    found = dict.fromkeys(every_message())
    return [m for m in found if re.search("[a-z]", re.sub("{.*?}", "", m.text))]


def every_message() -> Iterator[Message]:
    """Yield what each place in the source says where it makes an error, by file."""
    trees = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    kinds = derived_classes(trees)
    for path, tree in trees.items():
        constants = text_constants(tree)
        for node in ast.walk(tree):
            if (
                not isinstance(node, ast.Call)
                or not node.args
                or _last_name(node.func) not in kinds
            ):
                continue
            text = words(node.args[0], constants)
            hints = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "hint")]
            yield Message(path, text, words(hints[0], constants) if hints else "")


def text_constants(tree: ast.Module) -> dict[str, str]:
    """Find the names that a module gives to texts."""
    return {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def derived_classes(trees: dict[str, ast.Module]) -> set[str]:
    """Find the names of all classes that derive from TokenmillError, and its own."""
    bases = {
        node.name: {_last_name(base) for base in node.bases}
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    kinds = {BASE}
    while more := {name for name, of in bases.items() if of & kinds} - kinds:
        kinds |= more
    return kinds


def words(node: ast.expr, constants: Mapping[str, str]) -> str:
    """Write an expression of text as a reader sees it, with names for what is filled in.

    Args:
        node: The expression.
        constants: Texts by the names that its module gives them.
    """
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(words(value, constants) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return words(node.left, constants) + words(node.right, constants)
    if isinstance(node, ast.IfExp):
        ways = [words(way, constants) for way in (node.body, node.orelse)]
        return " / ".join(way for way in ways if way)
    if isinstance(node, ast.FormattedValue):
        return words(node.value, constants)
    if isinstance(node, ast.Call) and _last_name(node.func) == "did_you_mean":
        return ""  # it is part of some runs' messages
    name = _last_name(node)
    return constants.get(name, f"{{{name or '..'}}}")


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
        return _last_name(node.args[0])  # {usd(price)} shows a price
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _cell(text: str) -> str:
    """Write text for a cell of a table: as it is, with no mark of Markdown or HTML in force."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|").replace("*", "\\*")
