"""Rollout of a version to a share of the users: labels, weights, and the file that says so.

`rollout.json` in the model's base directory is the one truth; `models.config` beside it says the
same to TensorFlow Serving (labels only: it knows no weights, so the client assigns users). Both are
written atomically.
"""

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, field, replace

from serving.saved_model import list_versions
from tokenmill.errors import TokenmillError
from tokenmill.files import AtomicFile

ROLLOUT_NAME = "rollout.json"
MODELS_CONFIG_NAME = "models.config"


@dataclass(frozen=True)
class Rollout:
    """State of a rollout.

    Attributes:
        stable: The version that serves users outside the canary.
        canary: The version on trial, or None.
        canary_weight: Share of users that get the canary, 0 to 1.
        salt: Text that makes the assignment of this rollout independent of others.
        status: "running", "promoted" or "rolled_back".
        reason: Why it ended.
        previous: The stable version before a promotion, or None.
        started: When the canary was begun with, seconds since 1970.
    """

    stable: int
    canary: int | None
    canary_weight: float
    salt: str
    status: str
    reason: str = ""
    previous: int | None = None
    started: float = field(default=0.0, compare=False)

    def assign(self, user_key: str | None) -> str:
        """Return the label for a user: the same for the same key, stable without a key.

        A user in the canary stays there when the weight grows.
        """
        if self.canary is None or user_key is None:
            return "stable"
        return "canary" if user_share(user_key, self.salt) < self.canary_weight else "stable"


def user_share(user_key: str, salt: str) -> float:
    """Map a user to a number in [0, 1) that looks random, by the SHA-256 of salt and key."""
    digest = hashlib.sha256(f"{salt}\x00{user_key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def read_rollout(base: str) -> Rollout | None:
    """Read the rollout of a base directory; None if there never was one.

    Raises:
        TokenmillError: The file is damaged.
    """
    path = os.path.join(base, ROLLOUT_NAME)
    try:
        with open(path, encoding="utf-8") as source:
            return Rollout(**json.load(source))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise TokenmillError(
            f"{path} is damaged: {error}.", "Restore it, or delete it to serve the newest version."
        ) from None


def write_rollout(base: str, rollout: Rollout, model_name: str = "default") -> None:
    """Write `rollout.json` and TensorFlow Serving's `models.config`, each at once."""
    _write(os.path.join(base, MODELS_CONFIG_NAME), models_config(base, rollout, model_name))
    _write(os.path.join(base, ROLLOUT_NAME), json.dumps(asdict(rollout), indent=2) + "\n")


def _write(path: str, text: str) -> None:
    with AtomicFile(path) as out:
        out.write(text.encode("utf-8"))
        out.flush()
        os.fsync(out.fileno())


def models_config(base: str, rollout: Rollout, model_name: str) -> str:
    """Return a ModelServerConfig as text: the versions to load and their labels."""
    versions = sorted({v for v in (rollout.stable, rollout.canary) if v is not None})
    labels = {"stable": rollout.stable}
    if rollout.canary is not None:
        labels["canary"] = rollout.canary
    lines = [
        "model_config_list {",
        "  config {",
        f"    name: {json.dumps(model_name)}",
        f"    base_path: {json.dumps(os.path.abspath(base))}",
        '    model_platform: "tensorflow"',
        "    model_version_policy { specific {",
        *(f"      versions: {version}" for version in versions),
        "    } }",
        *(
            f"    version_labels {{ key: {json.dumps(key)} value: {version} }}"
            for key, version in labels.items()
        ),
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def start_rollout(
    base: str, versions: list[int], canary: int, weight: float, stable: int | None = None
) -> Rollout:
    """Make a rollout of `canary` to a share of the users.

    Args:
        base: The model's base directory.
        versions: Numbers of the complete versions in it.
        canary: The version to try.
        weight: Share of the users, above 0 and at most 1.
        stable: The version that others get; None is the current one, or the newest before canary.

    Raises:
        TokenmillError: A version does not exist, or another rollout is running.
    """
    current = read_rollout(base)
    if current is not None and current.status == "running" and current.canary != canary:
        raise TokenmillError(
            f"version {current.canary} is being rolled out.", "Promote it or roll it back first."
        )
    if stable is None:
        earlier = [v for v in versions if v < canary]
        stable = current.stable if current is not None else max(earlier, default=None)
    for version, name in ((canary, "--canary"), (stable, "--stable")):
        if version not in versions:
            known = ", ".join(map(str, versions)) or "none"
            raise TokenmillError(f"{name} {version}: no such version in {base}.", f"There: {known}")
    if not 0 < weight <= 1 or stable == canary:
        raise TokenmillError(
            f"a rollout from version {stable} to {canary} with weight {weight:g}: expected two "
            "versions and a weight above 0 and at most 1."
        )
    assert stable is not None
    begun = Rollout(stable, canary, weight, f"{stable}-{canary}", "running", started=time.time())
    if current is not None and replace(current, canary_weight=weight) == begun:
        return replace(begun, started=current.started)  # it goes on with another weight
    return begun


def end_rollout(base: str, promote: bool, reason: str) -> Rollout:
    """End the rollout: the canary becomes stable, or all users get the stable version again.

    After a promotion, rolling back gives all users the version that was stable before it.

    Args:
        base: The model's base directory.
        promote: Whether the canary becomes stable.
        reason: Why the rollout ends.

    Returns:
        The rollout to write.

    Raises:
        TokenmillError: No rollout is running, or the version that would serve is gone.
    """
    current = read_rollout(base)
    running = current is not None and current.status == "running" and current.canary is not None
    undone = current is not None and current.status == "promoted" and not promote
    if current is None or not (running or undone):
        raise TokenmillError(f"no rollout is running in {base}.", "Begin one: rollout start.")
    version = current.canary if promote else current.previous if undone else current.stable
    there = list_versions(base)
    if version is None or version not in there:
        name = "the version before the promotion" if version is None else f"version {version}"
        raise TokenmillError(
            f"{name} is not in {base} (any more): nobody could be served by it.",
            f"There: {', '.join(map(str, there)) or 'none'}. Copy it back, or "
            + ("roll back." if promote else "promote the canary, or start another rollout."),
        )
    return replace(
        current,
        stable=version,
        canary=None,
        canary_weight=0.0,
        status="promoted" if promote else "rolled_back",
        reason=reason,
        previous=current.stable if promote else None,
    )
