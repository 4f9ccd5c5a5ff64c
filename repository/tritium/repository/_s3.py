"""A prefix of an S3 bucket: its objects one by one, and its failures in words."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritium.client import InputError, MissingExtraError

from ._errors import StoreAccessError, StoreError

SCHEME = "s3://"
# Triton's own forms.
_URL = re.compile(
    r"s3://(?:(?P<endpoint>https?://[A-Za-z0-9.-]+:[0-9]{1,5})/)?"
    r"(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*?))?/*"
)
_USERINFO = re.compile(r"//[^/]*@")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_CHUNK_BYTES = 2**20
# S3 keeps one sha256 of what came in one piece. What came in several has to be read again to be verified.
_ONE_PIECE_BYTES = 256 * 2**20
_PIECE_BYTES = 64 * 2**20
_ATTEMPTS = 4
_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 60
_MEND_KEYS = "Mend AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile that AWS_PROFILE names"
_MEND_ENDPOINT = (
    "Is something listening there, and is it S3? The endpoint is the one in the URL, as in "
    "s3://http://127.0.0.1:9000/bucket/prefix, else that of AWS_ENDPOINT_URL, else AWS"
)
_NEEDED = "They need s3:ListBucket and s3:GetObject, and s3:PutObject to push"
# What to do, by S3's code or the name of botocore's exception.
_ADVICE = {
    "NoSuchBucket": "Mend the URL, or make the bucket first",
    "NoSuchKey": "It vanished in the meantime: try again",
    "404": "It vanished in the meantime: try again",
    "PreconditionFailed": "It was changed in the meantime: try again",
    "AccessDenied": f"These credentials may not do that. {_NEEDED}",
    "403": f"These credentials may not do that. {_NEEDED}",
    "InvalidAccessKeyId": _MEND_KEYS,
    "SignatureDoesNotMatch": _MEND_KEYS,
    "ExpiredToken": "Get new credentials, and try again",
    "AuthorizationHeaderMalformed": "Set AWS_DEFAULT_REGION to the bucket's region",
    "PermanentRedirect": "Set AWS_DEFAULT_REGION to the bucket's region",
    "NoCredentialsError": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "PartialCredentialsError": _MEND_KEYS,
    "ProfileNotFound": "Mend AWS_PROFILE",
    "FlexibleChecksumError": "It is damaged: delete it and push again",
    "InvalidConfigError": "Mend AWS_ENDPOINT_URL or AWS_DEFAULT_REGION",
    "ConnectionError": _MEND_ENDPOINT,
    "HTTPClientError": _MEND_ENDPOINT,
}


@dataclass(frozen=True)
class Stored:
    """An object, as a listing has it.

    Attributes:
        modified: when, in UTC, as ISO 8601.
    """

    etag: str
    size_bytes: int
    modified: str


def is_safe(name: str) -> bool:
    """Whether an object's name may become a path: it leads nowhere else, and prints as it is."""
    return not _UNSAFE.search(name) and not {"", ".", ".."} & set(name.split("/"))


class Bucket:
    """The objects below a prefix, by their names below it.

    Args:
        url: as in ``s3://bucket/prefix`` or ``s3://http://host:port/bucket/prefix``.

    Raises:
        InputError: it is no such URL.
        MissingExtraError: boto3 is not installed.
        StoreError: the settings for S3 in the environment cannot be used.
    """

    def __init__(self, url: str) -> None:
        match = _URL.fullmatch(url)
        if not match or (match["prefix"] and not is_safe(match["prefix"])):
            raise InputError(
                "The URL of a repository in S3 must be s3://bucket/prefix, s3://http://host:port/bucket/prefix or "
                f"s3://https://host:port/bucket/prefix, got {_USERINFO.sub('//***@', url)!r} instead; boto3 finds keys "
                "elsewhere, in AWS_ACCESS_KEY_ID or a profile for one"
            )
        self.url = url.rstrip("/")
        self._bucket = match["bucket"]
        self._prefix = f"{match['prefix']}/" if match["prefix"] else ""
        try:
            import boto3  # noqa: F401 — only to say what is missing
        except ImportError as exc:
            raise MissingExtraError("boto3", "s3") from exc
        with self._explained():
            self._client = _client(match["endpoint"])

    def location(self, name: str = "") -> str:
        """Where an object lies, for people."""
        return f"{self.url}/{name}" if name else self.url

    def listing(self, folder: str = "") -> dict[str, Stored]:
        """Every object whose name begins so.

        Raises:
            StoreError: S3 does not answer, or refuses.
        """
        with self._explained():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + folder
            )
            return {
                item["Key"].removeprefix(self._prefix): Stored(
                    item["ETag"], item["Size"], item["LastModified"].isoformat()
                )
                for page in pages
                for item in page.get("Contents", ())
            }

    def sha256(self, name: str, *, claimed: bool = False) -> str:
        """The sha256 of an object, in hexadecimal: as S3 itself computed it, else by reading it all.

        Args:
            name: the object's.
            claimed: be content with what the one who sent it says of it.

        Raises:
            StoreError: it is not there, or S3 does not answer or refuses.
        """
        with self._explained(name):
            head = self._client.head_object(Bucket=self._bucket, Key=self._prefix + name, ChecksumMode="ENABLED")
        checksum = head.get("ChecksumSHA256", "")
        # What came in pieces has a dash, and its checksum is one of the pieces' checksums.
        if checksum and "-" not in checksum + head["ETag"]:
            return base64.b64decode(checksum).hex()
        if claimed and "sha256" in head["Metadata"]:
            return str(head["Metadata"]["sha256"])
        digest = hashlib.sha256()
        self._read(name, head["ETag"], digest.update)
        return digest.hexdigest()

    def fetch(self, name: str, stored: Stored, target: Path) -> str:
        """Write an object to a file; its sha256, in hexadecimal.

        Raises:
            StoreError: it is no longer the listed one, is not what its sender said, or S3 does not answer or refuses.
        """
        digest = hashlib.sha256()
        with target.open("wb") as file:

            def take(chunk: bytes) -> None:
                digest.update(chunk)
                file.write(chunk)

            metadata = self._read(name, stored.etag, take)
            size_bytes = file.tell()
        found = digest.hexdigest()
        if size_bytes != stored.size_bytes or metadata.get("sha256", found) != found:
            raise StoreError(
                f"{self.location(name)} is damaged: it is not what was sent. Delete it and push again",
                url=self.location(name),
            )
        return found

    def put(self, name: str, source: Path | None, sha256: str, *, new: bool = False) -> None:
        """Send a file, or nothing under a folder's name; S3 shows it whole or not at all.

        Args:
            name: the object's.
            source: the file; None for an object without content.
            sha256: the file's, in hexadecimal; S3 refuses other content.
            new: refuse to replace other content.

        Raises:
            StoreError: S3 does not answer or refuses, or other content is there already.
        """
        metadata = {"sha256": sha256}
        with self._explained(name):
            if source is None:
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=b"", Metadata=metadata)
            elif source.stat().st_size > _ONE_PIECE_BYTES:
                if new and name in self.listing(name) and self.sha256(name, claimed=True) != sha256:
                    raise self._too_late(name)
                self._put_in_pieces(name, source, metadata)
            else:
                self._put_whole(name, source, metadata, new)

    def _put_whole(self, name: str, source: Path, metadata: dict[str, str], new: bool) -> None:
        from botocore.exceptions import ClientError

        checksum = base64.b64encode(bytes.fromhex(metadata["sha256"])).decode()
        condition = {"IfNoneMatch": "*"} if new else {}
        try:
            with source.open("rb") as file:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._prefix + name,
                    Body=file,
                    Metadata=metadata,
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=checksum,
                    **condition,
                )
        except ClientError as exc:
            if exc.response["Error"]["Code"] not in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise
            # It may be our own, sent again by botocore because the answer was lost.
            if self.sha256(name) != metadata["sha256"]:
                raise self._too_late(name) from exc

    def _too_late(self, name: str) -> StoreError:
        return StoreError(
            f"Another push was quicker: {self.location(name)} is there now, with other content. Pull it, and publish "
            "yours under the next number",
            url=self.location(name),
        )

    def _put_in_pieces(self, name: str, source: Path, metadata: dict[str, str]) -> None:
        from boto3.s3.transfer import TransferConfig

        with source.open("rb") as file:
            self._client.upload_fileobj(
                file,
                self._bucket,
                self._prefix + name,
                ExtraArgs={"Metadata": metadata, "ChecksumAlgorithm": "SHA256"},
                Config=TransferConfig(multipart_threshold=_PIECE_BYTES, multipart_chunksize=_PIECE_BYTES),
            )

    def _read(self, name: str, etag: str, take: Callable[[bytes], object]) -> dict[str, str]:
        """Give an object's content to `take`, chunk by chunk; its metadata. A broken connection is taken up again."""
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

        place = {"Bucket": self._bucket, "Key": self._prefix + name, "IfMatch": etag}
        position = failures = 0
        with self._explained(name):
            while True:
                rest = {"Range": f"bytes={position}-"} if position else {}
                response = self._client.get_object(**place, **rest)
                try:
                    for chunk in response["Body"].iter_chunks(_CHUNK_BYTES):
                        take(chunk)
                        position += len(chunk)
                        failures = 0
                    metadata: dict[str, str] = response["Metadata"]
                    return metadata
                except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
                    failures += 1
                    if failures == _ATTEMPTS:
                        raise
                finally:
                    response["Body"].close()

    @contextmanager
    def _explained(self, name: str = "") -> Iterator[None]:
        """Turn every failure of S3 into a StoreAccessError that says what to do."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as exc:
            place = self.location(name)
            raise StoreAccessError(
                f"{place} cannot be used: {str(exc).rstrip('.')}. {_advice(exc)}", url=place
            ) from exc


def _advice(exc: Exception) -> str:
    response = getattr(exc, "response", None) or {}
    codes = [response.get("Error", {}).get("Code", "")]
    codes += [base.__name__ for base in type(exc).__mro__]
    return next((_ADVICE[code] for code in codes if code in _ADVICE), "Try again")


def _client(endpoint: str | None) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import InvalidConfigError

    config = Config(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        # An endpoint of one's own has no name for each bucket.
        s3={"addressing_style": "path" if endpoint else "auto"},
        # Other makers' S3 may not know the checksums that boto3 would add of its own accord.
        request_checksum_calculation="when_required",
    )
    try:
        return boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)
    except ValueError as exc:  # of AWS_ENDPOINT_URL or AWS_DEFAULT_REGION
        raise InvalidConfigError(error_msg=str(exc)) from exc
