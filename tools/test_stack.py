"""Tests a copy of this tree on one of the two stacks, wherever the machine's own is the other.

    python3 tools/test_stack.py modern|py310 [--target test-core]

The copy lies under build/ and is kept, so that the second time its .venv is there. Where glibc is
older than the modern stack needs, it lies in a Debian 13 root, which is made with mmdebstrap (two
minutes, 600 MB; with the stack 5 GB) and entered by chroot: both need root. Mounts are in a
namespace of their own and end with the process. Exit code 3: there can be no such root here. Needs
Python 3.8 and nothing else.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
from typing import NoReturn

HERE = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = (
    "ca-certificates,curl,g++,git,iproute2,make,netbase,procps,python3-dev,python3-venv,tzdata,"
    "mariadb-server,postgresql"
)
GLIBC = (2, 39)
NO_ROOT = 3
# Whatever describes the machine's own Python and shell is none of the other root's.
OWN = ("PATH", "PWD", "OLDPWD", "VIRTUAL_ENV", "TMPDIR", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
OWN_PREFIXES = ("PYTHON", "PYENV", "UV_CACHE", "TOKENMILL", "PIP_FIND_LINKS")
IN_ROOT = """\
set -e
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/dev/shm" 2>/dev/null || true
root=$1; shift
exec chroot "$root" "$@"
"""


def main() -> int:
    """Run the target; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stack", choices=("modern", "py310"))
    parser.add_argument("--target", default="test", help="Make target. Default: test.")
    arguments = parser.parse_args()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in OWN and not name.startswith(OWN_PREFIXES)
    }
    environment |= {"TOKENMILL_STACK": arguments.stack, "HOME": os.environ.get("HOME", "/root")}
    commands = [["make", "--no-print-directory", arguments.target]]
    if arguments.target == "test":
        commands.append(["make", "--no-print-directory", "run-short"])
    if arguments.stack == "py310" or _glibc() >= GLIBC:
        tree = HERE / "build" / arguments.stack
        prefix: list[str] = []
        environment["PATH"] = os.environ["PATH"]
        inside = tree
    else:
        root = debian_13_root(HERE / "build" / "debian13")
        tree, inside = root / "src", pathlib.Path("/src")
        environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        prefix = ["unshare", "--mount", "--propagation", "private"]
        prefix += ["sh", "-c", IN_ROOT, "sh", str(root)]
    copy_tree(tree)
    print(f"test_stack: {arguments.target} on the stack {arguments.stack} in {tree}", flush=True)
    for command in commands:
        words = [*prefix, "env", f"--chdir={inside}", *command] if prefix else command
        code = subprocess.run(words, cwd=None if prefix else tree, env=environment).returncode
        if code:
            print(f"test_stack: {arguments.target} FAILED on the stack {arguments.stack}")
            return code
    print(f"test_stack: {arguments.target} passed on the stack {arguments.stack}", flush=True)
    return 0


def _glibc() -> tuple[int, ...]:
    name = os.confstr("CS_GNU_LIBC_VERSION") or "glibc 0"
    return tuple(int(part) for part in name.split()[1].split("."))


def debian_13_root(root: pathlib.Path) -> pathlib.Path:
    """Make the root unless it is there; return it."""
    if os.geteuid():
        _give_up("it is made and entered as root only.")
    if subprocess.run(["unshare", "--mount", "true"]).returncode:
        _give_up("mounts of its own are not allowed here.")
    if not (root / "made").exists():
        if shutil.which("mmdebstrap") is None:
            _give_up("mmdebstrap is missing (Debian: apt-get install mmdebstrap).")
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(exist_ok=True)
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"]
        if subprocess.run([*command, "trixie", root]).returncode:
            _give_up("mmdebstrap could not make it.")
        (root / "made").touch()
    # How this machine reaches the package index.
    for path in ("etc/resolv.conf", "etc/hosts", "etc/ssl/certs/ca-certificates.crt"):
        if pathlib.Path("/", path).exists():
            shutil.copy(pathlib.Path("/", path), root / path)
    return root


def _give_up(why: str) -> NoReturn:
    print(f"test_stack: no Debian 13 root: {why}", file=sys.stderr)
    sys.exit(NO_ROOT)


def copy_tree(tree: pathlib.Path) -> None:
    """Copy what git knows or would add; keep the environment that an earlier call made there."""
    tree.mkdir(parents=True, exist_ok=True)
    for entry in tree.iterdir():
        if entry.name not in (".venv", ".uv"):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=HERE, capture_output=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, os.fsdecode(listed).split("\0")):
        source, target = HERE / name, tree / name
        # Neither deleted since nor a repository within this one.
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    subprocess.run(["git", "init", "--quiet"], cwd=tree, check=True)


if __name__ == "__main__":
    sys.exit(main())
