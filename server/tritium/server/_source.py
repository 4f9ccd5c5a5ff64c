"""Where a server's models come from: a folder, or S3 by way of a copy in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tritium.client import TritiumError
from tritium.repository import Repository, RepositoryError, S3Repository, StoreAccessError, cache_dir, is_s3

from ._runtime import Progress


class Source:
    """A model repository in a folder, which is always what it is.

    Attributes:
        name: what people call it, and `running_servers` know it by: the folder, or the URL.
        repository: the folder that is served.
    """

    def __init__(self, folder: str | Path) -> None:
        self.repository = Repository(folder)
        self.name = str(self.repository.path)

    def pull(self, model: str) -> None:
        """Bring what there is of a model into the folder."""

    def refresh(self, models: Sequence[str] | None) -> Iterator[tuple[str, TritiumError]]:  # noqa: ARG002 — of a folder
        """Bring what changed since the last time, of these models or of all; why models were not brought."""
        yield from ()


class Mirror(Source):
    """A model repository in S3, served from a copy in the cache, which all servers of that repository share.

    If S3 is away, the copy is served as it is.

    Args:
        url: the repository's.
        models: what to bring at first; all by default.
        progress: is told of each object that is fetched.

    Raises:
        InputError: it is no such URL, or there is no such model.
        MissingExtraError: boto3 is not installed.
        StoreError: S3 does not answer or refuses, and there is no copy; or what lies there is not whole.
        RepositoryError: the cache cannot be written.
    """

    def __init__(self, url: str, models: Sequence[str], progress: Progress) -> None:
        self._store = S3Repository(url)
        self._progress = progress
        # A folder of its own around it, for what is fetched aside: whoever installs the runtime sweeps the cache above.
        folder = cache_dir() / "mirrors" / hashlib.sha256(self._store.url.encode()).hexdigest()[:16] / "models"
        # What of each model was brought, or cannot be.
        self._known: dict[str, str] = {}
        try:
            known = self._store.fingerprints()  # first: what changes meanwhile is a change
            self._store.pull(folder, models, progress=progress)
            self._known = known
        except StoreAccessError as exc:
            if not folder.is_dir():
                raise
            progress(f"What is served is what was fetched before, which may be of old: {exc}")
        super().__init__(folder)
        self.name = self._store.url

    def pull(self, model: str) -> None:
        """Bring what S3 has of a model now. Raises what `S3Repository.pull` does."""
        self._store.pull(self.repository.path, [model], progress=self._progress)

    def refresh(self, models: Sequence[str] | None) -> Iterator[tuple[str, TritiumError]]:
        """Bring what changed in S3; a model that is wrong there keeps no other back, and waits for its next change.

        Raises:
            StoreError: S3 does not answer or refuses, or an object's name cannot be a file's.
            RepositoryError: the cache cannot be written.
        """
        there = self._store.fingerprints()
        for model in there if models is None else there.keys() & set(models):
            if self._known.get(model) == there[model]:
                continue
            try:
                self.pull(model)
            except (StoreAccessError, RepositoryError):
                raise  # the model may be good, so it is tried again
            except TritiumError as exc:
                yield model, exc
            self._known[model] = there[model]


def source_of(repository: str | Path, models: Sequence[str], progress: Progress) -> Source:
    """The source that a text or a path names. Raises what they do."""
    if isinstance(repository, str) and is_s3(repository):
        return Mirror(repository, models, progress)
    return Source(repository)
