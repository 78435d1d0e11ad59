"""Errors of `obstore` as errors of ours; the client's own messages may hold signed URLs, so they are never shown."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from vrekit.core.errors import (
    AccessError,
    DatasetError,
    MissingObjectError,
    NetworkError,
    ObjectChangedError,
    ObjectExistsError,
    StorageError,
    VrekitError,
)
from vrekit.core.stores.base import PassingError

_CREDENTIALS_HINTS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_REGION, AWS_ENDPOINT_URL); "
    "for a public bucket AWS_SKIP_SIGNATURE=true",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_STATUS = re.compile(r"status code: (\d{3})([A-Za-z ]*)")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_TIMEOUT = re.compile(r"kind: Timeout|TimedOut|timed out")
_METADATA_SERVER = "169.254.169.254"  # asked for credentials when the environment has none


class RangeError(StorageError):
    """The server refused a range."""


def changed_error(where: str) -> ObjectChangedError:
    """Return the error for an object that is another one than was expected."""
    return ObjectChangedError(f"{where} was changed by another process", hint="run this again")


@contextmanager
def named_errors(where: str, scheme: str) -> Iterator[None]:
    """Turn errors of the client about an object into errors of ours."""
    from obstore import exceptions as errors

    try:
        yield
    except VrekitError:
        raise
    except FileNotFoundError as error:
        hint = "there is no such bucket: make it first" if "NoSuchBucket" in str(error) else None
        raise MissingObjectError(f"there is no {where}", hint=hint) from None
    except errors.AlreadyExistsError:
        raise ObjectExistsError(f"{where} is there already") from None
    except errors.PreconditionError:
        raise changed_error(where) from None
    except (errors.PermissionDeniedError, errors.UnauthenticatedError):
        raise _no_access(where, scheme) from None
    except errors.NotSupportedError as error:
        problem = "gives no parts of files" if "ange" in str(error) else "does not offer this"
        raise StorageError(f"{where}: the server {problem}", hint="download the dataset, and open the copy") from None
    except errors.InvalidPathError:
        raise DatasetError(f"{where} holds names that are no paths, such as a//b") from None
    except (errors.BaseError, OSError, ValueError) as error:
        raise _network_error(where, scheme, str(error)) from None


def _no_access(where: str, scheme: str) -> AccessError:
    return AccessError(f"{where}: the server denies access", hint=_CREDENTIALS_HINTS.get(scheme))


def _network_error(where: str, scheme: str, text: str) -> StorageError:
    if scheme == "memory":  # it has no network: only a range can be wrong
        return RangeError(f"{where} has no such range")
    if _METADATA_SERVER in text or "Account must be specified" in text or "MissingAccount" in text:
        return AccessError(f"{where}: there are no access keys", hint=_CREDENTIALS_HINTS.get(scheme))
    if match := _STATUS.search(text):
        status, reason = int(match[1]), match[2].strip()
        code = f" ({found[1]})" if (found := _CODE.search(text)) else ""
        message = f"{where}: the server answers {status} {reason}{code}"
        if status in (401, 403):
            return _no_access(where, scheme)
        if status == 416:
            return RangeError(message)
        if code == " (NoSuchBucket)":
            return MissingObjectError(message, hint="there is no such bucket: make it first")
        if status in (408, 429) or (status >= 500 and status not in (501, 505)) or "RequestTimeout" in code:
            return PassingError(message, hint="try again later")
        return NetworkError(message)
    if "builder error" in text:
        return NetworkError(
            f"{where}: the URL of the server cannot be used", hint="an end point looks like https://host"
        )
    problem = "the server did not answer in time" if _TIMEOUT.search(text) else "the connection failed"
    return PassingError(f"{where}: {problem}", hint="check the network and the address, then run this again")
