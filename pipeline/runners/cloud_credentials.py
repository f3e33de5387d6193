"""Whether anybody is signed in to Google Cloud, asked before libraries try for minutes."""

import http.client
import os

from tokenmill.errors import TokenmillError

_METADATA_SERVER = "169.254.169.254"  # of a virtual machine in Google Cloud
_ANSWER_SECONDS = 1.0


def check_credentials(what: str) -> None:
    """Check that there are credentials.

    Args:
        what: What they are needed for.

    Raises:
        TokenmillError: There are none. Beam would look for them again and again, and then go on
            without, and again.
    """
    if "STORAGE_EMULATOR_HOST" in os.environ:
        return
    if not _has_file() and not _has_metadata_server():
        raise _missing(what, "no file has any, and no metadata server of Google Cloud answers")
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        google.auth.default()
    except DefaultCredentialsError as error:
        raise _missing(what, (str(error).splitlines() or [""])[0]) from None


def _missing(what: str, why: str) -> TokenmillError:
    return TokenmillError(
        f"{what}: there are no credentials of Google Cloud here: {why}",
        "Sign in with: gcloud auth application-default login; or set "
        "GOOGLE_APPLICATION_CREDENTIALS to a service account's file.",
    )


def _has_file() -> bool:
    """Return whether there is a file where Google's libraries look for credentials first."""
    if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return True
    home = os.environ.get("CLOUDSDK_CONFIG") or os.path.expanduser("~/.config/gcloud")
    return os.path.isfile(os.path.join(home, "application_default_credentials.json"))


def _has_metadata_server() -> bool:
    """Return whether a metadata server answers at once; google.auth asks thrice, for seconds."""
    if os.environ.get("NO_GCE_CHECK") == "true":
        return False
    host = os.environ.get("GCE_METADATA_IP") or os.environ.get("GCE_METADATA_HOST")
    connection = http.client.HTTPConnection(host or _METADATA_SERVER, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/", headers={"Metadata-Flavor": "Google"})
        return connection.getresponse().getheader("Metadata-Flavor") == "Google"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
