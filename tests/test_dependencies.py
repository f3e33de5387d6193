"""Imports against pyproject.toml, both ways; locks, docs/dependencies.md and the image agree."""

import ast
import importlib.metadata
import pathlib
import re
import sys

import pytest
import tomli
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PRODUCT = ("tokenmill", "components", "pipeline", "serving", "data")
# Used without an import: by name, by the Makefile or by pytest.
NOT_IMPORTED = {
    "httptools": "uvicorn's parser of HTTP, which serving/server/protocol.py extends",
    "ipykernel": "the kernel that nbclient starts for notebooks/a_run.ipynb",
    "mypy": "`make lint`",
    "pytest-timeout": "`timeout` in pyproject.toml",
    "ruff": "`make lint`",
    "tensorboard": "TensorBoard shows the files that the Trainer writes",
}
LOCKS = (
    "requirements.lock",
    "requirements-gpu.lock",
    "requirements-py310.lock",
    "requirements-py310-gpu.lock",
    "tests/serving/clients/openai.lock",
    "tests/serving/clients/schemathesis.lock",
    "serving/benchmark/lm_eval.lock",
    "tools/audit.lock",
    "tools/docs.lock",
    "tools/engines/flink.lock",
    "tools/engines/spark.lock",
    "tools/uv.lock",
)


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def declared(requirements):
    """Names of the requirements that hold on this Python."""
    parsed = map(Requirement, requirements)
    return {
        canonicalize_name(each.name)
        for each in parsed
        if each.marker is None or each.marker.evaluate()
    }


RUN = declared(PROJECT["dependencies"])
DEVELOPMENT = declared(PROJECT["optional-dependencies"]["dev"])


def modules(distribution):
    """Dotted names of the modules and regular packages that a distribution installs."""
    names = set()
    for file in importlib.metadata.files(distribution) or ():
        if file.suffix in (".py", ".so") and ".." not in file.parts:
            parts = [*file.parts[:-1], file.name.split(".")[0]]
            names.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


# tokenmill/export/transformers_check.py asks the first two where the user has them; the client of
# tests/serving/clients runs in an environment of its own.
OF_THE_USER = {"torch", "transformers", "openai"}


def imported(folders):
    """Dotted names that the files in these folders import, each with one that does."""
    own = {path.stem for path in ROOT.glob("tests/**/*.py")} | {*PRODUCT, "tools", "tests"}
    found = {}
    for path in (path for folder in folders for path in ROOT.glob(f"{folder}/**/*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                if name.split(".")[0] not in {*own, *sys.stdlib_module_names}:
                    found.setdefault(name, path.relative_to(ROOT))
    return found


def prefixes(name):
    parts = name.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts) + 1)}


@pytest.mark.parametrize(
    ("folders", "names"), [(PRODUCT, RUN), (("tests", "tools"), RUN | DEVELOPMENT)]
)
def test_every_import_is_of_a_declared_dependency(folders, names):
    known = OF_THE_USER.union(*map(modules, names))
    missing = {name: path for name, path in imported(folders).items() if not prefixes(name) & known}
    assert not missing, "not of a dependency that pyproject.toml names"


@pytest.mark.parametrize(("folders", "names"), [(PRODUCT, RUN), (("tests", "tools"), DEVELOPMENT)])
def test_every_declared_dependency_is_used(folders, names):
    used = set().union(*map(prefixes, imported(folders)))
    unused = {name for name in names - NOT_IMPORTED.keys() if not modules(name) & used}
    assert not unused, "declared, but imported nowhere"


def pins(lock):
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[^]]*\])?==([^ ]+)", read(lock), re.MULTILINE))


def test_page_names_every_dependency_and_its_versions():
    lines = [line for line in read("docs/dependencies.md").splitlines() if line.startswith("| `")]
    rows = {cells[0].strip("`"): cells for cells in (line[2:-2].split(" | ") for line in lines)}
    every = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    modern, old = pins("requirements.lock"), pins("requirements-py310.lock")
    names = {canonicalize_name(Requirement(each).name) for each in every}
    assert {name: cells[3:5] for name, cells in rows.items()} == {
        name: [modern[name], old[name]] for name in names
    }
    assert all(purpose and licence for _, purpose, licence, *_ in rows.values())


def test_what_is_installed_admits_this_python():
    """pip refuses a package whose Requires-Python excludes the Python; uv installs it."""
    python = ".".join(map(str, sys.version_info[:3]))
    refused = {}
    for distribution in importlib.metadata.distributions():
        wanted = distribution.metadata.get("Requires-Python")
        if wanted and not SpecifierSet(wanted).contains(python):
            refused[distribution.name] = wanted
    assert not refused


@pytest.mark.parametrize("name", LOCKS)
def test_locks_have_hashes_and_no_index(name):
    text = read(name)
    assert "://" not in text
    entries = re.findall(r"^[a-z0-9].*?==.*(?:\n .*)*", text, re.MULTILINE)
    assert len(entries) > (200 if name in ("requirements.lock", "requirements-py310.lock") else 0)
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("stack", ["", "-py310"])
def test_gpu_lock_adds_nvidia_libraries_only(stack):
    """Look for other differences: the image installs this lock over the stack's own."""
    base, gpu = pins(f"requirements{stack}.lock"), pins(f"requirements{stack}-gpu.lock")
    assert gpu["tensorflow"] == base["tensorflow"]
    added = {name for name in gpu if base.get(name) != gpu[name]}
    assert added
    assert {name.split("-")[0] for name in added} == {"nvidia"}


def test_image_and_docs_name_the_cuda_of_the_locks():
    cuda = pins("requirements-gpu.lock")["nvidia-cuda-runtime-cu12"]
    old = pins("requirements-py310-gpu.lock")["nvidia-cuda-runtime-cu12"]
    engines = read("docs/engines.md")
    for version, page in ((cuda, read("Dockerfile")), (cuda, engines), (old, engines)):
        assert f"CUDA {'.'.join(version.split('.')[:2])}" in page


def test_image_is_checked_on_its_own_debian():
    suite = re.search(r'^SUITE = "(.*)"', read("tools/check_image.py"), re.MULTILINE)[1]
    base = re.search(r"^ARG BASE=(.*)", read("Dockerfile"), re.MULTILINE)[1]
    assert re.fullmatch(rf"python:3\.13\.\d+-slim-{suite}@sha256:[0-9a-f]{{64}}", base)


def test_docker_is_sent_what_the_image_copies():
    sent = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    lines = re.findall(r"^COPY (?!--from)(.*) \S+$", read("Dockerfile"), re.MULTILINE)
    assert {source for line in lines for source in line.split()} == sent
