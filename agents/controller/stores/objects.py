"""Objects in S3-compatible storage, by key: what a store of blobs needs of it, and its failures in words.

`QD_BLOBS_URL=s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME]`. The credentials are read from a file, in AWS's
own form, which only the controller opens: what is in a process's environment, its ranks could read.

The library is obstore (`pip install 'quarterdeck[s3]'`); docs/decisions/0036 says why.
"""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import importlib
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from jobs.base.errors import InvalidInput, NotFound, Unreachable

T = TypeVar("T")

PART = 16 << 20
"""Bytes of a part of a large object, up and down: 10,000 of them, the most that S3 takes, are 156 GiB."""
_AT_ONCE = 6
"""Parts of one object under way: they are in memory."""
_READ_TIMEOUT = timedelta(seconds=60)
_CONNECT_TIMEOUT = timedelta(seconds=5)
_PROBE_TIMEOUT = timedelta(seconds=5)
"""For a question whose answer says whether trying on is of use."""
_RETRY_FOR = timedelta(seconds=40)
"""A request is tried again for as long as that; a person waits for its answer."""
_RETRIES = 5
_AGAIN = (0.5, 2.0)
"""Seconds before a whole upload is tried again: obstore does not repeat one that has timed out."""
_RENEW = timedelta(minutes=5)
_DOWN = 10.0
"""Seconds for which nothing is tried after the storage did not answer: some callers hold others up."""
_HINT = (
    "What runs runs on. See QD_BLOBS_URL and its credentials (docs/storage.md); it is tried again."
)


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, and a folder in it. `endpoint` is empty for AWS itself."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = "us-east-1"

    @classmethod
    def parse(cls, url: str) -> Place:
        """Raises InvalidInput."""
        parts = urlsplit(url)
        asked = dict(parse_qsl(parts.query))
        unknown = asked.keys() - {"endpoint", "region"}
        if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or unknown:
            raise InvalidInput(
                f"QD_BLOBS_URL: '{url}'"
                + (f" has '{min(unknown)}'" if unknown else " names no place for blobs"),
                "It is s3://BUCKET/PREFIX?endpoint=http://HOST:PORT&region=NAME, or not set: then blobs are "
                "in the state folder.",
            )
        endpoint = asked.get("endpoint", "")
        if endpoint and urlsplit(endpoint).scheme not in ("http", "https"):
            raise InvalidInput(f"QD_BLOBS_URL: endpoint '{endpoint}' is no http:// or https:// URL")
        return cls(parts.netloc, parts.path.strip("/"), endpoint, asked.get("region", "us-east-1"))

    def __str__(self) -> str:
        where = f"s3://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")
        return f"{where}?endpoint={self.endpoint}" if self.endpoint else where


@dataclass(frozen=True, slots=True)
class Listed:
    """An object: its key below the prefix, bytes, and when it was last written (unix time)."""

    key: str
    size: int
    at: float


class Credentials:
    """Those of a file, read again every few minutes: they may be short-lived.

    The file is as `~/.aws/credentials`: `aws_access_key_id`, `aws_secret_access_key`, `aws_session_token` of
    the profile `default`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self) -> dict[str, Any]:
        parsed = configparser.ConfigParser(interpolation=None)
        try:
            parsed.read_string(self._file.read_text())
            found = parsed["default"]
            return {
                "access_key_id": found["aws_access_key_id"],
                "secret_access_key": found["aws_secret_access_key"],
                "token": found.get("aws_session_token"),
                "expires_at": datetime.now(UTC) + _RENEW,
            }
        except (OSError, KeyError, configparser.Error, UnicodeDecodeError) as error:
            kind = type(error).__name__ if not isinstance(error, OSError) else error.strerror
            raise InvalidInput(f"the credentials in {self._file} cannot be read: {kind}") from None


class _Ended(Exception):
    """The object ends before what was asked for."""


class Objects:
    """Blocking; safe from several threads.

    Args:
        credentials: a file. Where there is none, the host's own role is asked for (its metadata service).
    """

    def __init__(self, place: Place, credentials: Path | None) -> None:
        self.place = place
        try:
            self._library: Any = importlib.import_module("obstore")
            stores: Any = importlib.import_module("obstore.store")
        except ImportError:
            raise InvalidInput(
                "QD_BLOBS_URL needs the package obstore, which is not installed",
                "pip install 'quarterdeck[s3]'",
            ) from None
        config: dict[str, Any] = {"region": place.region, "checksum_algorithm": "SHA256"}
        if place.endpoint:
            config["endpoint"] = place.endpoint
            config["virtual_hosted_style_request"] = False
        options: dict[str, Any] = {
            "connect_timeout": _CONNECT_TIMEOUT,
            "allow_http": place.endpoint.startswith("http://"),
        }
        patient = {"read_timeout": _READ_TIMEOUT, "timeout": timedelta(minutes=10)}
        brief = {"read_timeout": _PROBE_TIMEOUT, "timeout": _PROBE_TIMEOUT}
        retries = {
            "max_retries": _RETRIES,
            "retry_timeout": _RETRY_FOR,
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=5),
            },
        }
        self._credentials = None if credentials is None else Credentials(credentials)
        more: dict[str, Any] = {}
        if self._credentials is not None:
            more["credential_provider"] = self._credentials

        def opened(times: dict[str, Any], again: dict[str, Any]) -> Any:
            return stores.S3Store(
                place.bucket,
                prefix=place.prefix or None,
                config=config,
                client_options={**options, **times},
                retry_config=again,
                **more,
            )

        self._store = opened(patient, retries)
        self._probe = opened(brief, {**retries, "max_retries": 1})
        self._down: tuple[float, str] = (0.0, "")  # until when nothing is tried, and why
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="objects")

    def put(self, key: str, file: Path) -> None:
        """Upload a file; in parts when it is large. It is there whole, or not at all."""
        size = file.stat().st_size
        self._look()
        for wait in (*_AGAIN, None):
            try:
                self._call(
                    lambda: self._library.put(
                        self._store, key, file, chunk_size=PART, max_concurrency=_AT_ONCE
                    )
                )
                return
            except (NotFound, Unreachable) as error:
                why = error.message if isinstance(error, Unreachable) else "an upload was ended"
                # Putting the parts together takes long, and its answer may be lost. Asked again, the server
                # knows of no such upload, since it is the object now.
                try:
                    if self._probed(key) == size:
                        return
                except Unreachable:  # it does not answer: another upload would end as this one
                    wait = None
                if wait is None:
                    raise self._note(Unreachable(why, _HINT)) from error
            time.sleep(wait)

    def _probed(self, key: str) -> int | None:
        """Bytes of an object, None when it is not there: one question, without patience."""
        try:
            return int(self._call(lambda: self._library.head(self._probe, key))["size"])
        except NotFound:
            return None

    def get(self, key: str, size: int, target: Path) -> str:
        """Download an object into a new file; the hex sha256 of what came. Raises NotFound."""
        hasher, offset = hashlib.sha256(), 0
        coming: deque[Future[Any]] = deque()
        with target.open("xb") as file:
            try:
                while coming or offset < size:
                    while offset < size and len(coming) < _AT_ONCE:
                        end = min(offset + PART, size)
                        coming.append(self._threads.submit(self.range, key, offset, end))
                        offset = end
                    try:
                        data = coming.popleft().result()
                    except _Ended:
                        break
                    hasher.update(data)
                    file.write(data)
            finally:
                for one in coming:
                    one.cancel()
        return hasher.hexdigest()

    def range(self, key: str, start: int, end: int) -> Any:
        """Bytes of an object, as a buffer. Raises NotFound; it may be shorter than was asked for."""
        return self._try(lambda: self._library.get_range(self._store, key, start=start, end=end))

    def delete(self, key: str) -> None:
        """One that is not there is no error."""
        with contextlib.suppress(NotFound):
            self._try(lambda: self._library.delete(self._store, key))

    def list(self) -> Iterator[Listed]:
        """All objects below the prefix, a thousand at a time."""
        pages = iter(self._library.list(self._store, chunk_size=1_000))
        while (page := self._try(lambda: next(pages, None))) is not None:
            for item in page:
                yield Listed(item["path"], item["size"], item["last_modified"].timestamp())

    def sign(self, key: str, seconds: float) -> str:
        """A URL with which anybody may read the object for that long. No request is made."""
        url: str = self._try(
            lambda: self._library.sign(self._store, "GET", key, timedelta(seconds=seconds))
        )
        return url

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _try(self, call: Callable[[], T]) -> T:
        """Raises NotFound for an object that is not there, Unreachable for all else."""
        self._look()
        try:
            return self._call(call)
        except Unreachable as error:
            raise self._note(error) from error.__cause__

    def _look(self) -> None:
        """Raises Unreachable for a moment after the storage did not answer."""
        until, why = self._down
        if time.monotonic() < until:
            raise Unreachable(why, _HINT)

    def _note(self, error: Unreachable) -> Unreachable:
        self._down = time.monotonic() + _DOWN, error.message
        return error

    def _call(self, call: Callable[[], T]) -> T:
        errors: Any = importlib.import_module("obstore.exceptions")
        try:
            return call()
        except (errors.NotFoundError, FileNotFoundError) as error:
            if "NoSuchBucket" in str(error):
                raise Unreachable(f"there is no bucket {self.place}", _HINT) from error
            raise NotFound(f"{self.place} has no such object") from error
        except (
            errors.PermissionDeniedError,
            errors.UnauthenticatedError,
            PermissionError,
        ) as error:
            raise Unreachable(self._refused(), _HINT) from error
        except (errors.BaseError, OSError) as error:
            if "Range Not Satisfiable" in str(error):
                raise _Ended from None
            raise Unreachable(
                f"the object storage {self.place} does not answer: {_reason(error)}", _HINT
            ) from error

    def _refused(self) -> str:
        try:
            if self._credentials is not None:
                self._credentials()
        except InvalidInput as error:
            return error.message
        return f"{self.place} refuses the credentials"


def _reason(error: Exception) -> str:
    """On one line, without the library's inner structures; the system's own word is among those."""
    head, _, inner = str(error).partition("\n\nDebug source:")
    found = re.search(r'(?:message|error): "([^"]{1,100})"', inner)
    words = head.rpartition("  - ")[2].strip().splitlines() or [type(error).__name__]
    return words[0][:200] + (f" ({found[1]})" if found else "")


def credentials_file(config: Path, environ: Mapping[str, str]) -> Path | None:
    """The file of credentials: QD_BLOBS_CREDENTIALS, or `blobs-credentials` in the config folder. None
    where there is neither."""
    named = environ.get("QD_BLOBS_CREDENTIALS")
    if named:
        return Path(named)
    found = config / "blobs-credentials"
    return found if found.exists() else None
