"""The floors of the house, asserted from the imports (CONTRIBUTING.md describes them)."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = ("data", "tokenmill", "components", "serving", "pipeline")
# Modules that all steps share: they import TFX, which the library does not.
SHARED_BY_STEPS = {"components", "components.artifacts"}


def modules():
    """Name -> path of every product module."""
    found = {}
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(name):
    """(imported name, line) of every import of a module, those inside functions too."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}:{node.lineno}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full if full in MODULES else node.module), node.lineno


def edges():
    """(module, module that it imports, line) within the product."""
    return [
        (name, target, line)
        for name in MODULES
        for target, line in imports_of(name)
        if target in MODULES and target != name
    ]


EDGES = edges()


def floor_of(name):
    return FLOORS.index(name.split(".")[0])


def step_of(name):
    """The step that a module belongs to; None outside the steps."""
    parts = name.split(".")
    return parts[1] if parts[0] == "components" and name not in SHARED_BY_STEPS else None


def test_there_is_something_to_look_at():
    assert len(MODULES) > 200
    assert len(EDGES) > 800
    assert {step_of(name) for name in MODULES} >= {"ingest", "curate", "pack", "train", "push"}


def test_imports_go_down():
    upward = [f"{a}:{line} imports {b}" for a, b, line in EDGES if floor_of(b) > floor_of(a)]
    assert not upward


def test_no_step_imports_another():
    across = [
        f"{a}:{line} imports {b}"
        for a, b, line in EDGES
        if step_of(a) and step_of(b) and step_of(a) != step_of(b)
    ]
    assert not across


def test_what_steps_share_imports_no_step():
    assert not [f"{a} imports {b}" for a, b, _ in EDGES if a in SHARED_BY_STEPS and step_of(b)]


def test_the_library_imports_no_tfx():
    offenders = [
        f"{name}:{line} imports {target}"
        for name in MODULES
        if floor_of(name) <= FLOORS.index("tokenmill")
        for target, line in imports_of(name)
        if target.split(".")[0] == "tfx"
    ]
    assert not offenders


@pytest.mark.parametrize("folder", ["serving"])
def test_what_is_beside_the_pipeline_can_be_deleted(folder):
    """Only the commands that show it know of it."""
    users = {a for a, b, _ in EDGES if b.split(".")[0] == folder and a.split(".")[0] != folder}
    assert users <= {"pipeline.cli.benchmark", "pipeline.cli.gateway", "pipeline.cli.serve"}


def test_the_studies_can_be_deleted():
    """Only their commands know of them."""
    folder = "pipeline.studies"
    users = {a for a, b, _ in EDGES if b.startswith(folder) and not a.startswith(folder)}
    assert users <= {"pipeline.cli.ladder", "pipeline.cli.value"}


def test_within_serving_imports_go_down():
    """TensorFlow Serving's API knows nothing of OpenAI's; what starts them knows both."""
    order = ["server", "gateway", "app", "benchmark"]
    for a, b, line in EDGES:
        floors = [name.split(".")[1] for name in (a, b) if name.startswith("serving.")]
        if len(floors) == 2 and set(floors) <= set(order):
            assert order.index(floors[0]) >= order.index(floors[1]), f"{a}:{line} imports {b}"


def test_no_two_files_import_each_other():
    """Nor do more of them in a circle: depth-first, each file once."""
    targets = {}
    for a, b, _ in EDGES:
        targets.setdefault(a, set()).add(b)
    done, path = set(), []

    def visit(name):
        if name in done:
            return
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        path.append(name)
        for target in sorted(targets.get(name, ())):
            # A package's __init__ imports its own modules, which import it for its name only.
            if not name.startswith(f"{target}."):
                visit(target)
        done.add(path.pop())

    for name in sorted(targets):
        visit(name)
