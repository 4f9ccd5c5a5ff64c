"""A model repository in S3, laid out as Triton itself reads it there."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritium.client import InputError

from ._config import check_name, config_text, read_config
from ._errors import RepositoryError, StoreError
from ._manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest, file_sha256
from ._mirror import fingerprints, mirror, whole_versions
from ._operations import set_back
from ._repository import CONFIG_NAME, Repository
from ._s3 import SCHEME, Bucket, Stored, is_safe

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """A model that was pushed, and verified as it lies there.

    Attributes:
        url: the repository's.
        versions: those of the local repository, in ascending order; all of them are there now.
        sent: the objects that were sent, by their names below the URL, in that order.
        sent_bytes: how much that was.
        kept: how many were there already.
    """

    model: str
    url: str
    versions: Sequence[int]
    sent: Sequence[str]
    sent_bytes: int
    kept: int

    def __str__(self) -> str:
        """As in ``iris versions 1, 2 in s3://models/prod/iris: 6 objects sent (31.4 kB), 3 were there``."""
        versions = ", ".join(map(str, self.versions))
        return (
            f"{self.model} version{'s' if len(self.versions) > 1 else ''} {versions} in {self.url}/{self.model}: "
            f"{len(self.sent)} objects sent ({self.sent_bytes / 1e3:.1f} kB), {self.kept} were there"
        )


@dataclass(frozen=True)
class _File:
    path: Path | None  # None for a folder without files, which S3 knows only as an object of that name
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class _Plan:
    """What a model is to be there: its files by object name, in the order of sending, and which of them to send."""

    model: str
    versions: Sequence[int]
    files: Mapping[str, _File]
    to_send: Sequence[str]


def _say_nothing(_: str) -> None:
    """Progress that nobody looks at."""


def is_s3(text: str) -> bool:
    """Whether a text names a repository in S3, and no folder."""
    return text.startswith(SCHEME)


class S3Repository:
    """A model repository in S3: the same folders and files as `Repository` has, as objects.

    Args:
        url: ``s3://bucket/prefix`` for AWS, or the endpoint that the environment names, as for every boto3 program;
            ``s3://http://host:port/bucket/prefix`` or ``s3://https://…`` for another endpoint, as Triton writes it.

    Raises:
        InputError: it is no such URL.
        MissingExtraError: boto3 is not installed.
        StoreError: the settings for S3 in the environment cannot be used.
    """

    def __init__(self, url: str) -> None:
        self._bucket = Bucket(url)
        self.url = self._bucket.url

    def __repr__(self) -> str:
        """As in ``S3Repository('s3://models/prod')``."""
        return f"S3Repository({self.url!r})"

    def push(self, local: Repository, models: Sequence[str] = (), *, progress: Progress = _say_nothing) -> list[Pushed]:
        """Copy models there with all their versions, and verify what lies there then.

        A version's manifest is its last object and `config.pbtxt` the model's last, so that no reader takes half a
        version for one. What is there already is not sent again, so an interrupted push is repeated at little cost.
        Versions and models that are only there stay.

        Args:
            local: the repository to copy.
            models: their names; all of them by default.
            progress: is told of each object that is sent, in a line for people.

        Raises:
            InputError: there is no such model or nothing to push, or a file has a name that cannot be an object's.
            ManifestError: a local version is not what its manifest says.
            StoreError: a version is there with other content, S3 does not answer or refuses, or an object there is
                damaged.
            RepositoryError: a local file cannot be read.
        """
        try:
            chosen = list(dict.fromkeys(models)) or local.models()
            if not chosen:
                raise InputError(f"There is no model with a version in {local.path}. `tritium add` publishes one")
            plans = [self._plan(local, model) for model in chosen]
            for plan in plans:
                self._send(plan, progress)
        except OSError as exc:
            raise RepositoryError(f"{exc.filename or local.path} cannot be read: {exc.strerror or exc}") from exc
        for plan in plans:
            self._verify(plan)
        return [
            Pushed(
                model=plan.model,
                url=self.url,
                versions=plan.versions,
                sent=plan.to_send,
                sent_bytes=sum(plan.files[name].size_bytes for name in plan.to_send),
                kept=len(plan.files) - len(plan.to_send),
            )
            for plan in plans
        ]

    def pull(self, target: str | Path, models: Sequence[str] = (), *, progress: Progress = _say_nothing) -> list[str]:
        """Make a local folder a copy of it, to be served from. Only what changed is fetched.

        Everything is fetched aside and checked first. Then whole versions appear by a rename each, `config.pbtxt` is
        replaced by one after them, and what vanished there vanishes here. If anything is wrong, nothing changes.

        A version with a manifest is whole if its manifest is there. A model without any manifest is taken as it is,
        once it has a `config.pbtxt`.

        Args:
            target: the folder, which is this repository's alone; made if it is not there.
            models: their names; all of them by default, and those that vanished there then vanish here.
            progress: is told of each object that is fetched, in a line for people.

        Returns:
            The models that are new, changed or gone, sorted.

        Raises:
            InputError: the folder holds something else, or there is no such model there.
            StoreError: S3 does not answer or refuses, there is no whole model, an object's name cannot be a file's, or
                a version is not what its manifest says.
            RepositoryError: the folder cannot be written.
        """
        return mirror(self._bucket, Path(target).absolute(), models, progress)

    def fingerprint(self) -> str:
        """A value that is another one as soon as anything there is; it costs a listing.

        Raises:
            StoreError: S3 does not answer, or refuses.
        """
        digest = hashlib.sha256()
        for name, stored in sorted(self._bucket.listing().items()):
            digest.update(f"{name}\0{stored.etag}\0{stored.size_bytes}\0".encode())
        return digest.hexdigest()

    def fingerprints(self) -> dict[str, str]:
        """For each model with a whole version, a value that is another one as soon as pulling it would bring something.

        It costs a listing.

        Raises:
            StoreError: S3 does not answer or refuses, or an object's name cannot be a file's.
        """
        return fingerprints(self._bucket)

    def roll_back(self, model: str, version: int | None = None) -> int:
        """Serve an older version, alone, as `tritium.repository.roll_back` does: one write of the config there.

        Args:
            model: the model's name.
            version: the version to go back to; by default the one before the latest that is served.

        Returns:
            The version that is served from now on.

        Raises:
            InputError: there is no such model, version or older version.
            ConfigError: the config there cannot be read.
            StoreError: S3 does not answer or refuses, or has no config of it.
        """
        versions = whole_versions(self._bucket, model)
        name = f"{model}/{CONFIG_NAME}"
        place = self._bucket.location(name)
        there = self._bucket.listing(name)
        if name not in there:
            raise StoreError(f"There is no {place}. Push the model with one", url=place, model=model)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / CONFIG_NAME
            self._bucket.fetch(name, there[name], path)
            config = read_config(path, called=place)
            chosen = set_back(config, versions, version, model=model, place=self.url)
            path.write_text(config_text(config), encoding="utf-8")
            self._bucket.put(name, path, file_sha256(path))
        return chosen

    def put_config(self, model: str, local: Repository) -> None:
        """Replace a model's `config.pbtxt` by the local one, at once: to roll back, or to change what is served.

        Raises:
            InputError: there is no such local model.
            ConfigError: the local config is missing, or cannot be read.
            StoreError: S3 does not answer, or refuses.
            RepositoryError: the local config cannot be read.
        """
        local.config(model)
        path = local.path / model / CONFIG_NAME
        try:
            self._bucket.put(f"{model}/{CONFIG_NAME}", path, file_sha256(path))
        except OSError as exc:
            raise RepositoryError(f"{path} cannot be read: {exc.strerror}") from exc

    def _plan(self, local: Repository, model: str) -> _Plan:
        """Check a model here, and compare it with what is there."""
        local.version_folder(check_name(model))  # says what there is, if it is none
        versions = local.versions(model)
        files: dict[str, _File] = {}
        there = self._bucket.listing(f"{model}/")
        to_send = []
        for version in versions:
            folder = f"{model}/{version}/"
            mine = dict(_version_files(local.path, folder))
            self._check_same(folder, mine, there)
            signature = folder + SIGNATURE_NAME
            to_send += [
                name
                for name, file in mine.items()
                if name not in there or (name == signature and not self._is_there(name, file, there))
            ]
            files |= mine
        beside = dict(_files_beside(local.path, model))
        to_send += [name for name in beside if not self._is_there(name, beside[name], there)]
        return _Plan(model, versions, files | beside, to_send)

    def _check_same(self, folder: str, mine: Mapping[str, _File], there: Mapping[str, Stored]) -> None:
        """A version that is there is the same one: versions are never rewritten. A signature may come and change."""
        theirs = {name for name in there if name.startswith(folder) and name != folder}
        for name in sorted(theirs - {folder + SIGNATURE_NAME}):
            if name not in mine or not self._is_there(name, mine[name], there):
                what = "has other content" if name in mine else "is only there"
                raise StoreError(
                    f"{self._bucket.location(folder)} is another version than the local one: "
                    f"{name.removeprefix(folder)} {what}. Versions are never rewritten: publish yours under the next "
                    "number. Only if it was left by a push that never ended, delete it there and push again",
                    url=self._bucket.location(name),
                    model=folder.partition("/")[0],
                )

    def _is_there(self, name: str, file: _File, there: Mapping[str, Stored]) -> bool:
        return (
            name in there
            and there[name].size_bytes == file.size_bytes
            and self._bucket.sha256(name, claimed=True) == file.sha256
        )

    def _send(self, plan: _Plan, progress: Progress) -> None:
        for name in plan.to_send:
            file = plan.files[name]
            progress(f"{self._bucket.location(name)} ({file.size_bytes / 1e3:.1f} kB)")
            # Of a version nothing is replaced but its signature; what lies beside the versions changes.
            of_a_version = name.split("/")[1] in map(str, plan.versions)
            new = of_a_version and not name.endswith(f"/{SIGNATURE_NAME}")
            self._bucket.put(name, file.path, file.sha256, new=new)

    def _verify(self, plan: _Plan) -> None:
        there = self._bucket.listing(f"{plan.model}/")
        for name, file in plan.files.items():
            place = self._bucket.location(name)
            if name not in there:
                raise StoreError(f"{place} is not there after it was sent. Push again", url=place, model=plan.model)
            if there[name].size_bytes != file.size_bytes or self._bucket.sha256(name) != file.sha256:
                raise StoreError(
                    f"{place} is damaged: it is not the local file {file.path}. Delete it there and push again",
                    url=place,
                    model=plan.model,
                )


def _version_files(root: Path, folder: str) -> Iterator[tuple[str, _File]]:
    """A version's files by object name, the manifest last; it is checked against it first."""
    path = root / folder
    if (path / MANIFEST_NAME).is_file():
        Manifest.load(path).check_files(path)
    names = sorted(_names(root, path), key=lambda name: (name == folder + MANIFEST_NAME, name))
    # S3 has no folders. This is how its own console writes an empty one, as the versions of ensembles are.
    yield from ((name, _file(root, name)) for name in names or [folder])


def _files_beside(root: Path, model: str) -> Iterator[tuple[str, _File]]:
    """What lies beside a model's versions, by object name, the config last: it names the others."""
    versions = {str(number) for number in Repository(root).versions(model)}
    names: list[str] = []
    for path in (root / model).iterdir():
        if path.name not in versions and not path.name.startswith("."):
            names += _names(root, path)
    config = f"{model}/{CONFIG_NAME}"
    yield from ((name, _file(root, name)) for name in sorted(names, key=lambda name: (name == config, name)))


def _names(root: Path, path: Path) -> Iterator[str]:
    """The object names of a file, or of every file in a folder.

    Raises:
        InputError: one is a link, or cannot be an object's name.
    """
    for file in path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]:
        name = file.relative_to(root).as_posix()
        if file.is_symlink():
            raise InputError(f"{file} is a link, which S3 does not know. Put the file itself there")
        if not is_safe(name):
            raise InputError(f"{file} cannot be pushed: its name must not have control characters or backslashes")
        if file.is_file():
            yield name


def _file(root: Path, name: str) -> _File:
    path = root / name
    if name.endswith("/"):
        return _File(None, 0, hashlib.sha256().hexdigest())
    return _File(path, path.stat().st_size, file_sha256(path))
