"""What the engines are made of: fetched once, checked against hashes, kept in .uv/engines.

Flink and Spark come from PyPI as they are packed for PyFlink and PySpark, Beam's runners for them
from Maven, Prism from Go's proxy, and the workers' environment is this project's wheel on top of
the packages of .venv.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOME = ROOT / ".uv" / "engines"
# Of Beam's releases whose runners are in Maven's repository the nearest to apache-beam's own pin.
BEAM_OF_JARS = "2.62.0"
_RUNNERS = {"flink": "beam-runners-flink-1.19", "spark": "beam-runners-spark-3"}
# Of 2.61, as old as the old stack, it fails on keys coded by Python ("unknown coder urn key").
PRISM = "2.77.0"
_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion>
<groupId>tokenmill</groupId><artifactId>engines</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.apache.beam</groupId><artifactId>{artifact}</artifactId><version>{beam}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies>
</project>
"""


class MissingError(Exception):
    """Something that fetching needs is not on this machine, or cannot be had."""


@dataclass(frozen=True)
class Parts:
    """Paths of what was fetched; those of other engines do not exist.

    Attributes:
        python: Python of the workers' environment.
        cluster_jars: Directory of Flink's or Spark's own jars.
        job_server_jars: Directory of Beam's job server for it, with all that it needs.
        prism: Prism's program.
    """

    python: Path
    cluster_jars: Path
    job_server_jars: Path
    prism: Path


def fetch(engine: str) -> Parts:
    """Fetch what an engine needs, unless it is there.

    Raises:
        MissingError: Java, Maven or Go is not installed, or an index does not answer.
    """
    HOME.mkdir(parents=True, exist_ok=True)
    cluster, job_server = HOME / engine, HOME / f"{engine}-job-server"
    prism = HOME / f"prism-{PRISM}"
    if engine == "prism":
        _fetch_prism(prism)
    else:
        _need("java", "Debian: apt-get install openjdk-17-jre-headless")
        package = {"flink": "pyflink/lib", "spark": "pyspark/jars"}[engine]
        _fetch_wheel(engine, cluster)
        cluster = cluster / package
        _fetch_jars(engine, job_server)
    return Parts(_worker_environment(), cluster, job_server, prism)


def _fetch_wheel(engine: str, target: Path) -> None:
    """Install a package for its jars alone."""
    if target.exists():
        return
    aside = _aside(target)
    lock = HERE / f"{engine}.lock"
    command = [_uv(), "pip", "install", "--quiet", "--require-hashes", "--no-deps"]
    _call([*command, "--python", sys.executable, "--target", str(aside), "-r", str(lock)])
    aside.rename(target)


def _fetch_jars(engine: str, target: Path) -> None:
    """Have Maven copy a runner with all it depends on; check every jar against the list."""
    if target.exists():
        return
    _need("mvn", "Debian: apt-get install maven")
    aside = _aside(target)
    aside.mkdir()
    (aside / "pom.xml").write_text(_POM.format(artifact=_RUNNERS[engine], beam=BEAM_OF_JARS))
    copy = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
    jars = aside / "jars"
    _call(["mvn", "-q", "-B", copy, f"-DoutputDirectory={jars}"], cwd=aside)
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(jars.iterdir())
    }
    listed = HERE / f"{engine}-jars.sha256"
    text = "".join(f"{digest}  {name}\n" for name, digest in found.items())
    if not listed.exists():
        listed.write_text(text)  # a new list, to be committed
    if listed.read_text() != text:
        old = dict(reversed(line.split("  ")) for line in listed.read_text().splitlines())
        wrong = sorted(set(old.items()) ^ set(found.items()))
        raise MissingError(f"jars differ from {listed}, {wrong[0][0]} first")
    jars.rename(target)
    shutil.rmtree(aside)


def _fetch_prism(target: Path) -> None:
    """Build Prism; Go checks the sums of what it downloads."""
    if target.exists():
        return
    _need("go", "https://go.dev/dl")
    aside = _aside(target)
    module = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{PRISM}"
    _call(["go", "install", module], env={**os.environ, "GOBIN": str(aside), "GOFLAGS": ""})
    (aside / "prism").rename(target)
    shutil.rmtree(aside)


@functools.cache  # one wheel for all engines
def _worker_environment() -> Path:
    """Make the workers' environment of the checkout's wheel; return its Python.

    A .pth file names the packages of this environment. Python does not follow .pth files that it
    finds by one, so that an editable installation of the checkout is not seen.
    """
    home = HOME / "worker"
    python = home / "bin" / "python"
    for old in (HOME / "source", HOME / "wheel"):
        shutil.rmtree(old, ignore_errors=True)
    wheel = build_wheel(HOME / "source", HOME / "wheel")
    stamp = home / "wheel.sha256"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == digest):
        shutil.rmtree(home, ignore_errors=True)
        _call([_uv(), "venv", "--quiet", "--python", sys.executable, str(home)])
        install = [_uv(), "pip", "install", "--quiet", "--no-deps", "--python", str(python)]
        _call([*install, str(wheel)])
        (packages,) = home.glob("lib/python3*/site-packages")
        (packages / "tokenmill-packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
        stamp.write_text(digest)
    return python


def build_wheel(source: Path, out: Path) -> Path:
    """Build the project's wheel from a copy, as setuptools writes beside the sources.

    Args:
        source: Where to copy the sources, a new directory.
        out: Where to write the wheel, another.
    """
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("components", "data", "pipeline", "serving", "tokenmill"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    out.mkdir()
    build = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    fixed = {**os.environ, "SOURCE_DATE_EPOCH": "1704067200"}  # so that the same sources are seen
    _call([sys.executable, "-c", build, str(out)], cwd=source, env=fixed)
    (path,) = out.iterdir()
    return path


def _aside(target: Path) -> Path:
    aside = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    return aside


def _uv() -> str:
    own = ROOT / ".uv" / "bin" / "uv"
    return str(own) if own.exists() else "uv"


def _need(program: str, how: str) -> None:
    if shutil.which(program) is None:
        raise MissingError(f"{program} is not installed; {how}")


def _call(command: list[str], **options: object) -> None:
    """Run a command.

    Raises:
        MissingError: It failed; with what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        told = (done.stdout + done.stderr).strip()[-2000:]
        raise MissingError(f"{' '.join(command[:6])} .. failed ({done.returncode}):\n{told}")
