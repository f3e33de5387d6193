"""tools/setup.sh on other machines: their Pythons, uv and glibc are stand-ins on PATH."""

import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import venv

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = ("tools/setup.sh", "tools/uv.lock", "pyproject.toml", "requirements.lock")
COMMANDS = ("sh", "cat", "cksum", "cp", "dirname", "flock", "ln", "mkdir", "rm", "sed", "uname")
VERSION = ".".join(map(str, sys.version_info[:2]))
STACK, GLIBC = ("py310", "2.36") if VERSION == "3.10" else ("modern", "2.39")
# Says what it is called with, and by which variables that would send it elsewhere.
UV = """\
#!/bin/sh
[ "$1" != --version ] || exit 0
echo "$* ${UV_SYSTEM_PYTHON:-}${UV_PYTHON:-}${PYTHONPATH:-}" >>"$CALLS"
[ "$1" != venv ] || { mkdir -p .venv/bin && ln -s "$4" .venv/bin/python; }
"""
# With venv and pip; this pip installs `uv`.
PYTHON = """\
#!/bin/sh
case "$*" in
  "-m venv"*) mkdir -p .uv/bin && cp "$0" .uv/bin/python ;;
  "-m pip install"*) echo "pip install uv" >>"$CALLS"; cp "$TOOLS/uv.good" .uv/bin/uv ;;
  *) exit 0 ;;
esac
"""


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)


class Machine:
    def __init__(self, directory):
        self.clone, self.bin = directory / "it's a clone", directory / "bin"
        self.calls_file = directory / "calls"
        (self.clone / "tools").mkdir(parents=True)
        for name in (*FILES, "requirements-py310.lock"):
            shutil.copy(ROOT / name, self.clone / name)
        self.bin.mkdir()
        for name in COMMANDS:
            (self.bin / name).symlink_to(shutil.which(name))
        self.glibc(GLIBC)
        script(self.bin / "g++", "#!/bin/sh\n")
        script(self.bin / "uv", UV)
        self.environment = {
            "PATH": str(self.bin),
            "HOME": str(directory),
            "CALLS": str(self.calls_file),
            "TOOLS": str(self.bin),
        }

    def glibc(self, version):
        script(self.bin / "getconf", f'#!/bin/sh\necho "glibc {version}"\n')

    def python(self):
        (self.bin / f"python{VERSION}").symlink_to(sys.executable)

    def calls(self):
        """Return what uv was called with since this was asked for last."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        return lines

    def setup(self, *arguments, **environment):
        return subprocess.run(
            ["tools/setup.sh", *arguments], cwd=self.clone, env=self.environment | environment,
            capture_output=True, text=True, check=True,
        )  # fmt: skip


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("glibc", "stack"),
    [
        ("2.36", "py310"), ("2.4", "py310"), ("2.38.9000", "py310"),
        ("2.39", "modern"), ("2.42.9000", "modern"), ("3.0", "modern"),
    ],
)  # fmt: skip
def test_glibc_chooses_the_stack(machine, glibc, stack):
    machine.glibc(glibc)
    result = machine.setup("--which")
    assert result.stdout == f"{stack}\n"
    assert len(result.stderr.splitlines()) == 1, result.stderr


def test_a_machine_without_home_is_set_up(machine):
    machine.python()
    del machine.environment["HOME"]
    assert machine.setup("--which").stdout == f"{STACK}\n"


def test_cdpath_leads_to_no_other_clone(machine, tmp_path):
    (tmp_path / "other" / "tools").mkdir(parents=True)
    result = machine.setup("--which", CDPATH=str(tmp_path / "other"))
    assert result.stdout in ("py310\n", "modern\n")


def test_packages_go_to_this_environment_whatever_uv_is_told(machine):
    machine.python()
    machine.setup(UV_SYSTEM_PYTHON="1", UV_PYTHON="3.9", PYTHONPATH="/nowhere")
    _, sync, editable = machine.calls()
    assert sync.startswith("pip sync ")
    assert editable.startswith("pip install ")
    for call in (sync, editable):
        assert "--python .venv/bin/python " in call
        assert not call.endswith(("13.9", "/nowhere"))
    assert machine.setup().returncode == 0
    assert machine.calls() == [], "all of it was there"


def test_the_active_environment_is_replaced_by_one_of_the_python_beneath(machine):
    venv.create(machine.clone / ".venv", symlinks=True)  # as an older tokenmill or the user made it
    python = machine.clone / ".venv" / "bin" / f"python{VERSION}"
    if not python.exists():
        python.symlink_to("python")
    machine.setup(PATH=f"{python.parent}:{machine.bin}")
    made = machine.calls()[0].rpartition(".venv")[0]
    assert made.split() == ["venv", "--quiet", "--python", f"{sys.base_prefix}/bin/python{VERSION}"]


def test_a_free_threaded_python_is_none_for_these_packages(machine):
    code = "import sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1"
    wrapper = f'#!/bin/sh\nexec {sys.executable} -c "{code}\n$2"\n'
    script(machine.bin / f"python{VERSION}", wrapper)
    assert "fetched" in machine.setup("--which").stderr
    script(machine.bin / f"python{VERSION}", wrapper.replace("= 1", "= 0"))
    assert f"{sys.base_prefix}/bin/python{VERSION}" in machine.setup("--which").stderr


def test_advice_is_of_a_system_that_has_the_python(machine):
    script(machine.bin / "uv", '#!/bin/sh\n[ "$1" = --version ]\n')
    for glibc, advice in (("2.36", "Ubuntu 22.04"), ("2.39", "Debian 13")):
        machine.glibc(glibc)
        with pytest.raises(subprocess.CalledProcessError) as raised:
            machine.setup()
        assert advice in raised.value.stderr.splitlines()[-1]


def test_a_copied_clone_gets_an_environment_of_its_own(machine):
    machine.python()
    machine.setup()
    machine.calls()
    copy = machine.clone.with_name("copy")
    shutil.copytree(machine.clone, copy, symlinks=True)
    machine.clone = copy
    machine.setup()
    assert [call.split()[0] for call in machine.calls()] == ["venv", "pip", "pip"]


def test_an_environment_whose_python_is_gone_is_made_anew(machine):
    machine.python()
    machine.setup()
    machine.calls()
    (machine.clone / ".venv" / "bin" / "python").unlink()
    machine.setup()
    assert len(machine.calls()) == 3


def test_a_shim_of_uv_that_fails_is_no_uv_and_the_pinned_one_is_raised(machine):
    machine.python()
    (machine.bin / "uv").rename(machine.bin / "uv.good")
    script(machine.bin / "uv", "#!/bin/sh\necho pyenv: uv: command not found >&2\nexit 127\n")
    script(machine.bin / "python3", PYTHON)
    machine.setup()
    assert machine.calls()[0] == "pip install uv"
    for change, calls in ((FILES[2], 2), (FILES[1], 3)):
        with (machine.clone / change).open("a") as file:
            file.write("# changed\n")
        machine.setup()
        assert len(machine.calls()) == calls


def test_two_at_once_take_turns(machine):
    machine.python()
    with (machine.clone / "tools" / "setup.sh").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with subprocess.Popen(
            ["tools/setup.sh"], cwd=machine.clone, env=machine.environment, stderr=subprocess.PIPE
        ) as second:
            lines = [second.stderr.readline() for _ in range(2)]
            assert b"waiting" in lines[1]
            assert not os.path.exists(machine.clone / ".venv")
            fcntl.flock(held, fcntl.LOCK_UN)
            second.stderr.read()
    assert second.returncode == 0
    assert len(machine.calls()) == 3
