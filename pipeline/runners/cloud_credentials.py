"""Whether anybody is signed in to Google Cloud, asked before libraries try for minutes."""

import os

from tokenmill.errors import TokenmillError


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
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        google.auth.default()
    except DefaultCredentialsError as error:
        first_line = (str(error).splitlines() or [""])[0]
        raise TokenmillError(
            f"{what}: there are no credentials of Google Cloud here: {first_line}",
            "Sign in with: gcloud auth application-default login; or set "
            "GOOGLE_APPLICATION_CREDENTIALS to a service account's file.",
        ) from None
