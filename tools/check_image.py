"""Executes the Dockerfile without Docker: its RUN steps in a clean Debian 13 root, by chroot.

    sudo python3 tools/check_image.py DIRECTORY [--build-arg VARIANT=gpu]

Needs root, mmdebstrap and Python 3 alone. The base image cannot be pulled here: its stand-in is a
minimal Debian 13 with Debian's own Python 3.13. COPY, ENV, ARG, WORKDIR and USER mean what they
mean to Docker, as far as this Dockerfile uses them. At the end the image's user checks that the
packages fit together (`pip check`) and runs the entry point and the command, and every executor of
the pipeline is imported.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parents[1]
# The release of the base image, and what the image has beyond a minimal Debian: Python with its
# headers, and what Python's own modules need.
SUITE = "trixie"
PACKAGES = "ca-certificates,netbase,tzdata,passwd,python3-dev,python3-venv"
EXECUTORS = (
    "ingest.component.CorpusExampleGenExecutor",
    "curate.component.CuratorExecutor",
    "pack.component.PackerExecutor",
    "ledger.component.TokenLedgerExecutor",
    "train.component.TrainerExecutor",
    "push.component.AtomicPusherExecutor",
)


def instructions(text: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) of each line, continued lines joined, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


class Stage:
    """A root directory and the environment that RUN sees."""

    def __init__(self, root: pathlib.Path):
        self.root, self.user, self.directory = root, "0", "/"
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.environment = {"PATH": path}

    def run(self, command: list[str]) -> None:
        """Runs in the root; raises CalledProcessError if it fails."""
        words = ["chroot", f"--userspec={self.user}", str(self.root), "/usr/bin/env", "-i"]
        words += [f"{name}={value}" for name, value in self.environment.items()]
        words += ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", self.directory, *command]
        print("+", *command, flush=True)
        subprocess.run(words, check=True)


def base_root(directory: pathlib.Path) -> pathlib.Path:
    """Make a minimal Debian with Python, as `python`, unless it is there; return its directory."""
    base = directory / "base"
    if not base.exists():
        aside = directory / "base.part"
        shutil.rmtree(aside, ignore_errors=True)
        subprocess.run(
            ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, aside],
            check=True,
        )
        (aside / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        for path in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
            if pathlib.Path("/", path).exists():
                shutil.copy(pathlib.Path("/", path), aside / path)
        aside.rename(base)
    return base


def build(dockerfile: str, directory: pathlib.Path, arguments: dict[str, str]) -> Stage:
    """Carries out all stages, with Docker's build arguments; returns the last."""
    base = base_root(directory)
    stages: dict[str, Stage] = {}
    stage = None
    for word, rest in instructions(dockerfile):
        if word == "FROM":
            name = rest.split(" AS ")[1] if " AS " in rest else "final"
            root = directory / name
            shutil.rmtree(root, ignore_errors=True)
            subprocess.run(["cp", "-a", "--reflink=auto", base, root], check=True)
            stage = stages[name] = Stage(root)
            # How this machine reaches the package index is no part of the image.
            stage.environment |= {k: v for k, v in os.environ.items() if k.startswith("PIP_")}
            stage.environment.pop("PIP_FIND_LINKS", None)
        elif stage is None:
            continue
        elif word == "ARG":
            name, _, value = rest.partition("=")
            stage.environment[name] = arguments.get(name, value)
        elif word == "ENV":
            for pair in rest.split():
                name, _, value = pair.partition("=")
                stage.environment[name] = value.replace("$PATH", stage.environment["PATH"])
        elif word == "WORKDIR":
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            stage.directory = rest
        elif word == "USER":
            stage.user = rest
        elif word == "RUN":
            stage.run(["sh", "-c", rest])
        elif word == "COPY":
            _copy(rest, stage, stages)
        elif word == "ENTRYPOINT":
            stage.environment["ENTRYPOINT"] = rest
        else:
            raise SystemExit(f"{word}: this check does not know the instruction.")
    assert stage is not None, "no FROM"
    return stage


def _copy(rest: str, stage: Stage, stages: dict[str, Stage]) -> None:
    *sources, target = rest.split()
    origin = HERE
    if sources[0].startswith("--from="):
        origin = stages[sources.pop(0).removeprefix("--from=")].root
    destination = pathlib.Path(stage.directory, target)
    inside = stage.root / destination.relative_to("/")
    for source in sources:
        path = origin / source.lstrip("/")
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__") if origin == HERE else None
            shutil.copytree(path, inside, symlinks=True, ignore=ignored, dirs_exist_ok=True)
        else:
            inside.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, inside)


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path, help="For the roots: 9 GB, 17 for a GPU.")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in arguments.build_arg)
    arguments.directory.mkdir(parents=True, exist_ok=True)
    dockerfile = (HERE / "Dockerfile").read_text(encoding="utf-8")
    image = build(dockerfile, arguments.directory, given)
    (image.root / "dev").mkdir(exist_ok=True)
    imports = "; ".join(
        f"from components.{path.rpartition('.')[0]} import {path.rpartition('.')[2]}"
        for path in EXECUTORS
    )
    image.run(["pip", "check"])
    image.run(["python", "-c", imports])
    image.run(["tokenmill", "--help"])
    image.run([*json.loads(image.environment["ENTRYPOINT"]), "--help"])
    print("the image's recipe works, up to the base image")
    return 0


if __name__ == "__main__":
    sys.exit(main())
