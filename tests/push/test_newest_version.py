import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.saved_model import newest_version
from tokenmill.errors import TokenmillError


def make_versions(base, names):
    for name in names:
        (base / name).mkdir(parents=True)
        (base / name / "saved_model.pb").write_bytes(b"")


def test_versions_are_numbers_not_words(tmp_path):
    make_versions(tmp_path, ["9", "10", "0100"])
    assert newest_version(str(tmp_path)) == str(tmp_path / "0100")


@settings(deadline=None, max_examples=25)
@given(versions=st.sets(st.integers(0, 10**12), min_size=1, max_size=5))
def test_the_highest_number_wins(tmp_path_factory, versions):
    base = tmp_path_factory.mktemp("versions")
    make_versions(base, [str(v) for v in versions])
    assert newest_version(str(base)) == str(base / str(max(versions)))


def test_what_is_no_number_is_no_version(tmp_path):
    make_versions(tmp_path, ["3", ".pushing", "9-old", "v12"])
    assert newest_version(str(tmp_path)) == str(tmp_path / "3")


def test_a_saved_model_may_be_named_itself(tmp_path):
    make_versions(tmp_path, ["5"])
    assert newest_version(str(tmp_path / "5")) == str(tmp_path / "5")


@pytest.mark.parametrize("names", [[], [".pushing"]])
def test_no_version_is_an_error_that_says_what_to_do(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(TokenmillError, match=r"no pushed model in .*tokenmill run"):
        newest_version(str(tmp_path))


def test_a_missing_directory_is_the_same_error(tmp_path):
    with pytest.raises(TokenmillError, match="no pushed model"):
        newest_version(str(tmp_path / "nowhere"))
