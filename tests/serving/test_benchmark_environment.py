"""The environment of lm-evaluation-harness where it cannot be made: a message, and nothing left."""

import pytest

from serving.benchmark import environment
from tokenmill.errors import TokenmillError


@pytest.mark.parametrize("uv", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_without_a_network_it_says_what_to_do(tmp_path, monkeypatch, uv):
    """The proxy is a port where nobody listens, and no cache has the packages."""
    if uv and environment._find_uv() is None:
        pytest.skip("no uv here")
    for name, value in {
        "XDG_CACHE_HOME": tmp_path / "cache",
        "UV_CACHE_DIR": tmp_path / "uv",
        "UV_HTTP_RETRIES": 0,
        "PIP_NO_CACHE_DIR": 1,
        "PIP_RETRIES": 0,
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, str(value))
    if not uv:
        monkeypatch.setattr(environment, "_find_uv", lambda: None)
    with pytest.raises(TokenmillError, match="lm-evaluation-harness cannot be installed") as error:
        environment.harness_python()
    assert "run this with a network" in error.value.hint
    assert list((tmp_path / "cache" / "tokenmill").iterdir()) == []
