"""Files are whole or not there, and what a killed writer left is never taken for data."""

import os
import subprocess
import sys

import pytest

from tokenmill.errors import TokenmillError
from tokenmill.files import (
    AtomicFile,
    check_is_no_pattern,
    list_files,
    remove_temporary_files,
    write_bytes,
)


def leave_half_a_file(path):
    """Begin a file and abandon it, as a killed process does."""
    AtomicFile(str(path)).file.close()


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "data"
    write_bytes(str(path), b"old")
    with pytest.raises(TypeError, match="bytes-like"), AtomicFile(str(path)) as out:
        out.writelines([b"new", "no bytes"])
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["data"]


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = str(tmp_path / "data")
    first, second = AtomicFile(path), AtomicFile(path)
    first.file.write(b"first")
    second.file.write(b"second")
    second.commit()
    first.commit()
    assert (tmp_path / "data").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["data"]


def test_what_a_killed_writer_left_is_not_listed_and_can_be_removed(tmp_path):
    for name in ("b.gz", "a.gz", ".hidden", "c.txt"):
        write_bytes(str(tmp_path / name), b"")
    leave_half_a_file(tmp_path / "a.gz")
    assert len(os.listdir(tmp_path)) == 5
    assert list_files(str(tmp_path), "*.gz") == [str(tmp_path / n) for n in ("a.gz", "b.gz")]
    assert len(list_files(str(tmp_path))) == 4
    remove_temporary_files(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [".hidden", "a.gz", "b.gz", "c.txt"]


def test_a_directory_that_is_not_there_has_no_files(tmp_path):
    assert list_files(str(tmp_path / "absent")) == []


def test_local_files_need_no_beam():
    code = (
        "import os, sys, tempfile, tokenmill.files as files\n"
        "with tempfile.TemporaryDirectory() as directory:\n"
        "    path = os.path.join(directory, 'a.json')\n"
        "    files.write_json(path, 1)\n"
        "    assert files.read_json(path) == 1 and files.list_files(directory) == [path]\n"
        "print({'apache_beam', 'tensorflow', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", ["a*", "a?b", "[a", "a\\b", "x{SPAN}y", "{YYYY}"])
def test_a_directory_whose_name_is_a_pattern_to_tfx_is_refused(name, tmp_path):
    with pytest.raises(TokenmillError, match="pattern"):
        check_is_no_pattern(str(tmp_path / name), "run.output_dir")


def test_other_names_are_taken(tmp_path):
    check_is_no_pattern(str(tmp_path / "a b'c" / "{x}"), "run.output_dir")


def test_a_write_that_fails_leaves_nothing_beside_the_file(tmp_path):
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        write_bytes(str(tmp_path / "directory"), b"new")
    assert os.listdir(tmp_path) == ["directory"]


@pytest.mark.parametrize("size_bytes", [5_000, 500_000])  # in the buffer until the end, and not
def test_a_full_disk_leaves_nothing_beside_the_file(size_bytes, tmp_path):
    code = (
        "import resource, sys; from tokenmill.files import write_bytes\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))\n"
        f"try: write_bytes(sys.argv[1], bytes({size_bytes}))\n"
        "except OSError as error: print(error.strerror)"
    )
    ran = subprocess.run([sys.executable, "-B", "-c", code, tmp_path / "data"],
                         capture_output=True, text=True, check=True)  # fmt: skip
    assert ran.stdout.strip() == "File too large"
    assert os.listdir(tmp_path) == []
