"""docs/private_names.md lists every use of a private name of TFX and the libraries it brings."""

import ast
import fnmatch
import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = ("data", "tokenmill", "components", "serving", "pipeline")
LIBRARIES = {
    *("apache_beam", "keras", "ml_metadata", "tensorflow", "tensorflow_data_validation"),
    *("tensorflow_model_analysis", "tensorflow_transform", "tfx", "tfx_bsl"),
}
# What these libraries document: their top modules, and below them these. For TFX this is what
# tfx.v1 exports, by the modules in which it is defined, and what its guide to custom components
# imports (component specs, executor specs, artifact_utils).
PUBLIC = (
    *LIBRARIES,
    *("apache_beam.io", "keras.ops", "ml_metadata.proto"),
    *("tfx.components", "tfx.components.pusher.component", "tfx.components.transform.component"),
    *("tfx.components.schema_gen.import_schema_gen.component", "tfx.dsl", "tfx.orchestration"),
    *("tfx.orchestration.data_types", "tfx.orchestration.pipeline"),
    *("tfx.orchestration.local.local_dag_runner", "tfx.proto", "tfx.types"),
    *("tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner",),
)
PUBLIC_TREES = (
    *("apache_beam.io.", "ml_metadata.proto.", "tensorflow.core.protobuf."),
    *("tfx.dsl.", "tfx.proto.", "tfx.types."),
)
# Underscored, and documented by Python all the same.
DOCUMENTED = {"_replace", "_asdict", "_fields", "_make", "_exit"}


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def is_public_module(name):
    return name in PUBLIC or name.startswith(PUBLIC_TREES)


def is_module(name):
    """Look the file up, without importing anything."""
    library, *parts = name.split(".")
    homes = importlib.util.find_spec(library).submodule_search_locations
    paths = [pathlib.Path(home, *parts) for home in homes]
    return any(path.is_dir() or path.with_suffix(".py").exists() for path in paths)


def imported_modules(tree):
    """Modules of the libraries that a file imports: `from a import b` is a.b if that is one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in LIBRARIES:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if is_module(name) else node.module for name in full]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in LIBRARIES)


def aliases(tree):
    """Name in the file -> what it is, dotted."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def resolve(dotted):
    """The object of a dotted name."""
    first, *rest = dotted.split(".")
    value = importlib.import_module(first)
    for i, part in enumerate(rest):
        if not hasattr(value, part):
            importlib.import_module(".".join([first, *rest[: i + 1]]))
        value = getattr(value, part)
    return value


def overridden(tree):
    """Private methods that a file's classes define and that their bases of libraries have."""
    known = aliases(tree)
    for cls in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        methods = {n.name for n in cls.body if isinstance(n, ast.FunctionDef)}
        methods = {name for name in methods if is_private(name)}
        if not methods:
            continue
        for base in map(ast.unparse, cls.bases):
            first, _, rest = base.partition(".")
            dotted = f"{known.get(first, first)}.{rest}".rstrip(".")
            if dotted.split(".")[0] in LIBRARIES:
                yield from (name for name in methods if hasattr(resolve(dotted), name))


def mentioned(tree):
    """Private attributes that a file reads, by a dot or by getattr."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            yield from (a.value for a in node.args[1:2] if isinstance(a, ast.Constant))


def defined(tree):
    """Names that a file gives: functions, classes, variables, attributes, parameters."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


@pytest.fixture(scope="module")
def uses():
    """(name, file) of every use."""
    paths = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
    trees = {
        str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in paths
    }
    ours = {name for tree in trees.values() for name in defined(tree)}
    return {
        (name, path)
        for path, tree in trees.items()
        for name in (
            *(name for name in imported_modules(tree) if not is_public_module(name)),
            *(name for name in mentioned(tree) if is_private(name) and name not in ours),
            *overridden(tree),
        )
    }


@pytest.fixture(scope="module")
def table():
    """(name, pattern of files) of every row."""
    text = (ROOT / "docs" / "private_names.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in text.partition("## ")[0].splitlines() if "|" in line]
    return [
        (name, pattern)
        for names, places in rows
        for name in re.findall("`(.+?)`", names)
        for pattern in re.findall("`(.+?)`", places)
    ]


def is_listed(use, row):
    (name, path), (listed, pattern) = use, row
    return (name == listed or name.startswith(f"{listed}.")) and fnmatch.fnmatch(path, pattern)


def test_the_search_finds_uses_of_each_kind(uses):
    found = {name for name, _ in uses}
    assert {"_pipeline_node", "_context", "_all_reduce_sum_gradients"} <= found
    assert "tfx.orchestration.portable.launcher" in found


def test_every_use_is_listed(uses, table):
    missing = [use for use in sorted(uses) if not any(is_listed(use, row) for row in table)]
    assert not missing, "list them in docs/private_names.md, with what breaks"


def test_every_row_is_used(uses, table):
    assert len(table) > 20
    stale = [row for row in table if not any(is_listed(use, row) for use in uses)]
    assert not stale, "take them out of docs/private_names.md"
