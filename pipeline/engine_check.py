"""What Kubeflow or Vertex AI would refuse, said before anything is written; imports no TFX."""

import re
from typing import Literal

from components.errors import TokenmillError
from pipeline.config import Config

Engine = Literal["kubeflow", "vertex"]

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def check_engine(config: Config, engine: Engine) -> None:
    """One message for everything that would fail on the engine, before anything is written.

    Raises:
        TokenmillError: Something is missing or wrong.
    """
    settings, wrong = config.engine, []
    if not config.corpus.input:
        wrong.append(
            "corpus.input is empty: the embedded corpus is on this machine only; give files that "
            "the containers can read"
        )
    root = settings.pipeline_root
    if not root:
        wrong.append("engine.pipeline_root is missing: gs://bucket/path, or a shared directory")
    elif engine == "vertex" and not root.startswith("gs://"):
        wrong.append(f"engine.pipeline_root = {root!r}: Vertex AI needs gs://bucket/path")
    if not settings.image:
        wrong.append("engine.image is missing: the image that docs/engines.md builds")
    elif not _DIGEST.search(settings.image):
        wrong.append(
            f"engine.image = {settings.image!r} has no digest: a tag can change under a run; "
            "expected name@sha256:<64 hex digits>"
        )
    if engine == "vertex":
        wrong += [
            f"engine.{name} is missing: Vertex AI needs it"
            for name in ("project", "region")
            if not getattr(settings, name)
        ]
    if wrong:
        raise TokenmillError(
            f"cannot compile for {engine}:\n" + "\n".join(f"  {line}." for line in wrong)
        )
