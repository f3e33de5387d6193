"""Every error that a user can read says what to do: in its hint, or in the message itself."""

import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The message says which value is right, or what to give or change: the hint would repeat it.
SAYS_WHAT_TO_DO = re.compile(
    r"expected .|at most \{|give (it|one|more|the shape|--)|[:;] (now|write|change) ."
    r"|needs (a price: )?--|; --set it"
)
# Of these only a part is in the source where they are made.
OTHERS_WORDS = {
    ("pipeline/loader.py", "{error}"): "pydantic's, with key, value and what is expected",
    ("pipeline/runners/launch.py", "cost.chip: {error}"): "find_chip's: choose one, or add a row",
    ("components/ledger/config.py", "cost.chip: {error}"): "find_chip's: choose one, or add a row",
    ("components/tokenize/chat_format.py", "{origin}: {error}"): "that error's, with its hint",
}


@pytest.fixture(scope="module")
def site_errors():
    sys.path.insert(0, str(ROOT))
    yield importlib.import_module("tools.site_errors")
    sys.path.remove(str(ROOT))


def without_remedy(messages):
    return {
        (message.path, message.text)
        for message in messages
        if not message.hint and not SAYS_WHAT_TO_DO.search(message.text)
    }


def test_every_error_says_what_to_do(site_errors):
    found = list(site_errors.every_message())
    assert len(found) > 300
    assert without_remedy(found) == set(OTHERS_WORDS), "give each a hint (tokenmill/errors.py)"


def test_an_error_without_a_remedy_is_found(site_errors, tmp_path, monkeypatch):
    (tmp_path / "tokenmill").mkdir()
    (tmp_path / "tokenmill" / "new.py").write_text(
        "class MyError(TokenmillError): ...\n"
        'raise MyError(f"{path} is bad.")\n'
        'raise MyError(f"{path} is bad.", "Mend it.")\n'
        'raise TokenmillError(f"{path} is {value}: expected more.")\n'
    )
    monkeypatch.setattr(site_errors, "ROOT", tmp_path)
    found = list(site_errors.every_message())
    assert len(found) == 3
    assert without_remedy(found) == {("tokenmill/new.py", "{path} is bad.")}
