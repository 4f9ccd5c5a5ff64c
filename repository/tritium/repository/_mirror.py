"""A local copy of a repository in S3, to be served from: what appears in it is whole and checked."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path, PurePosixPath

from tritium.client import InputError

from ._config import check_name
from ._errors import ManifestError, RepositoryError, StoreError
from ._manifest import MANIFEST_NAME, UNNAMED, Manifest
from ._repository import CONFIG_NAME, VERSION, Repository, locked, sync
from ._s3 import Bucket, Stored, is_safe

# What was fetched, and what it was then; Triton passes over files beside the models.
INDEX_NAME = ".tritium-mirror.json"

# For each object by its name, the listing's words about it.
_Index = dict[str, list[str | int]]


@dataclass
class _Model:
    """What is there of a model: for each version, and beside them, the objects by their names below it."""

    name: str
    versions: dict[str, dict[str, Stored]] = field(default_factory=lambda: defaultdict(dict))
    beside: dict[str, Stored] = field(default_factory=dict)

    def whole_versions(self) -> dict[str, dict[str, Stored]]:
        """Those that are whole; where there is no manifest at all, the config is the last object of a push."""
        published = {version: files for version, files in self.versions.items() if MANIFEST_NAME in files}
        return published or (dict(self.versions) if CONFIG_NAME in self.beside else {})

    def entries(self) -> _Index:
        """What the index says of it once it is here."""
        found = {f"{self.name}/{name}": stored for name, stored in self.beside.items()}
        for version, files in self.whole_versions().items():
            found |= {f"{self.name}/{version}/{name}": stored for name, stored in files.items()}
        return {name: list(astuple(stored)) for name, stored in found.items()}


@dataclass(frozen=True)
class _Change:
    """What is to be done to a model here. What is new lies in the staging folder, under the same names.

    Attributes:
        versions: the versions to take over.
        beside: the files beside them to take over, the config last.
        gone: the versions and files that are not there any more.
    """

    model: str
    versions: Sequence[str]
    beside: Sequence[str]
    gone: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.versions or self.beside or self.gone)


def mirror(bucket: Bucket, target: Path, models: Sequence[str], progress: Callable[[str], None]) -> list[str]:
    """Make a folder the copy of a repository in S3; see `S3Repository.pull`."""
    if not target.exists():
        _whole_models(bucket, models)  # what is wrong there is said before there is a folder here
    try:
        target.mkdir(parents=True, exist_ok=True)
        with locked(target):
            # Listed by whoever has the lock: of two at once, the last one then takes over what was there last.
            there = _whole_models(bucket, models)
            with _staging(target) as staging:
                return _brought_up_to_date(bucket, there, target, staging, progress, all_models=not models)
    except OSError as exc:
        raise RepositoryError(
            f"{target} cannot be brought up to date ({exc}). Free some space or mend the permissions and pull again; "
            "each version in it is whole"
        ) from exc


def _brought_up_to_date(
    bucket: Bucket,
    there: Mapping[str, _Model],
    target: Path,
    staging: Path,
    progress: Callable[[str], None],
    *,
    all_models: bool,
) -> list[str]:
    """Take over what is new of these models, and take away what is gone; the models that changed, sorted."""
    index = _read_index(target, bucket.url, staging)
    here = {path.name for path in target.iterdir() if path.is_dir() and not path.name.startswith(".")}
    changes = [_fetched(bucket, model, target, index, staging, progress) for model in there.values()]
    changes = [change for change in changes if change]
    gone = sorted(here - there.keys()) if all_models else []
    for change in changes:
        _switch(change, target, staging)
    for name in gone:
        (target / name).rename(staging / f".{name}.gone")
    kept = {name: row for name, row in index.items() if not all_models and name.partition("/")[0] not in there}
    for model in there.values():
        kept |= model.entries()
    if kept != index:
        _write_index(target, bucket.url, kept, staging)
    return sorted([*(change.model for change in changes), *gone])


def fingerprints(bucket: Bucket) -> dict[str, str]:
    """For each model with a whole version, another value as soon as anything of it that would be pulled is another."""
    whole = (model for model in _models(bucket).values() if model.whole_versions())
    return {
        model.name: hashlib.sha256(json.dumps(model.entries(), sort_keys=True).encode()).hexdigest() for model in whole
    }


def whole_versions(bucket: Bucket, model: str) -> list[int]:
    """The versions of a model that are whole there, in ascending order.

    Raises:
        InputError: there is no such model.
        StoreError: S3 does not answer or refuses, or there is no whole model.
    """
    return sorted(map(int, _whole_models(bucket, [model])[model].whole_versions()))


def _whole_models(bucket: Bucket, models: Sequence[str]) -> dict[str, _Model]:
    """The models there that have a whole version, or those of them that are asked for."""
    found = {model.name: model for model in _models(bucket).values() if model.whole_versions()}
    for name in sorted(found.keys() & set(models or found)):
        try:
            check_name(name)
        except InputError as exc:
            raise StoreError(f"{bucket.location(name)} cannot be pulled. {exc}", url=bucket.location(name)) from exc
    if not found:
        raise StoreError(
            f"There is no model with a whole version in {bucket.url}. Mend the URL, or `tritium push` one first",
            url=bucket.url,
        )
    for name in models:
        if name not in found:
            raise InputError(
                f"There is no model {name!r} with a whole version in {bucket.url}; there are {', '.join(sorted(found))}"
            )
    return {name: found[name] for name in sorted(models or found)}


def _models(bucket: Bucket) -> dict[str, _Model]:
    listing = bucket.listing()
    folders = {str(parent) for name in listing for parent in PurePosixPath(name).parents}
    models: dict[str, _Model] = {}
    for name, stored in listing.items():
        is_folder = name.endswith("/")
        if name and not is_safe(name.removesuffix("/")):
            raise StoreError(
                f"There is an object {name!r} in {bucket.url}, which cannot become a file: its name leads elsewhere, "
                "or has control characters or backslashes. Delete it; nothing has been fetched",
                url=bucket.url,
            )
        if name in folders:
            raise StoreError(
                f"{bucket.location(name)} cannot be a file and a folder. Delete it, or what is below it",
                url=bucket.location(name),
            )
        model, _, rest = name.partition("/")
        if not rest or model.startswith("."):
            continue  # no model's, or hidden as here
        entry = models.setdefault(model, _Model(model))
        first, slash, below = rest.partition("/")
        if slash and re.fullmatch(VERSION, first):
            files = entry.versions[first]
            if not is_folder:
                files[below] = stored
        elif not is_folder and not first.startswith("."):
            entry.beside[rest] = stored
    return models


def _fetched(
    bucket: Bucket,
    model: _Model,
    target: Path,
    index: _Index,
    staging: Path,
    progress: Callable[[str], None],
) -> _Change:
    """Bring what is new or changed of a model into the staging folder, and check it there."""

    def is_current(name: str, stored: Stored) -> bool:
        path = target / name
        known = index.get(name) == list(astuple(stored))
        return known and path.is_file() and path.stat().st_size == stored.size_bytes

    def bring(name: str, stored: Stored) -> None:
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        if is_current(name, stored):
            shutil.copyfile(target / name, staging / name)
        else:
            progress(f"{bucket.location(name)} ({stored.size_bytes / 1e3:.1f} kB)")
            bucket.fetch(name, stored, staging / name)

    folder = target / model.name
    versions = model.whole_versions()
    changed = []
    for version, files in versions.items():
        prefix = f"{model.name}/{version}"
        here = set(_files(target / prefix)) if (target / prefix).is_dir() else None
        if here == files.keys() and all(is_current(f"{prefix}/{name}", stored) for name, stored in files.items()):
            continue
        (staging / prefix).mkdir(parents=True)
        for name, stored in files.items():
            bring(f"{prefix}/{name}", stored)
        if MANIFEST_NAME in files:
            _check_version(bucket, prefix, staging)
        changed.append(version)
    beside = [name for name, stored in model.beside.items() if not is_current(f"{model.name}/{name}", stored)]
    for name in beside:
        bring(f"{model.name}/{name}", model.beside[name])
    return _Change(
        model.name,
        changed,
        sorted(beside, key=lambda name: (name == CONFIG_NAME, name)),
        list(_gone(folder, versions, model.beside)),
    )


def _check_version(bucket: Bucket, prefix: str, staging: Path) -> None:
    """A version is what its manifest says, or it is not taken over."""
    place = bucket.location(prefix)
    try:
        manifest = Manifest.load(staging / prefix)
    except ManifestError as exc:
        raise StoreError(f"{place} is not taken over: {exc}. The mirror is as it was", url=place) from exc
    present = manifest.with_files(staging / prefix).files
    for name in sorted(present.keys() | (manifest.files.keys() - UNNAMED)):
        if present.get(name) != manifest.files.get(name):
            place = bucket.location(f"{prefix}/{name}")
            what = "is missing" if name not in present else "is not the file that its manifest names"
            raise StoreError(
                f"{place} {what}. Mend it there, by deleting the version and pushing it again; the mirror is as it was",
                url=place,
                model=prefix.partition("/")[0],
            )


def _gone(folder: Path, versions: Mapping[str, object], beside: Mapping[str, object]) -> Iterator[str]:
    """What of a model here is not there any more."""
    if not folder.is_dir():
        return
    here = [str(number) for number in Repository(folder.parent).versions(folder.name)]
    yield from (version for version in here if version not in versions)
    for path in folder.iterdir():
        if path.name not in here and not path.name.startswith("."):
            names = [f"{path.name}/{name}" for name in _files(path)] if path.is_dir() else [path.name]
            yield from (name for name in names if name not in beside)


def _switch(change: _Change, target: Path, staging: Path) -> None:
    """Take a model's changes over, each by a rename: what a config names is there before it, and goes after it."""
    folder, new, old = target / change.model, staging / change.model, staging / f".{change.model}.old"
    for path in new.rglob("*") if new.is_dir() else ():
        sync(path)
    if not folder.is_dir():
        new.rename(folder)
        sync(target)
        return
    for version in change.versions:
        _set_aside(folder / version, old / version)
        (new / version).rename(folder / version)
    for name in change.beside:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).rename(folder / name)
    for name in change.gone:
        _set_aside(folder / name, old / name)
    for name in sorted({str(PurePosixPath(name).parent) for name in change.gone} - {"."}, reverse=True):
        if not any((folder / name).iterdir()):
            (folder / name).rmdir()
    sync(folder)


def _set_aside(path: Path, target: Path) -> None:
    if path.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def _files(folder: Path) -> Iterator[str]:
    yield from (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _read_index(target: Path, url: str, staging: Path) -> _Index:
    """What the folder has of the repository; nothing if it is empty.

    Raises:
        InputError: it holds something else, which would be deleted.
    """
    if not any(target.iterdir()):
        _write_index(target, url, {}, staging)
    try:
        content = json.loads((target / INDEX_NAME).read_text(encoding="utf-8"))
        if content["url"] == url:
            return dict(content["objects"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # no index, or not ours
    raise InputError(
        f"{target} is no copy of {url}: it holds something else, which would be lost. Name an empty folder, or one "
        "that this repository was pulled into before"
    )


def _write_index(target: Path, url: str, objects: _Index, staging: Path) -> None:
    aside = staging / f"{INDEX_NAME}.new"
    aside.write_text(json.dumps({"url": url, "objects": objects}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sync(aside)
    aside.rename(target / INDEX_NAME)
    sync(target)


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside the mirror, where no Triton takes it for a model. The mirror is locked."""
    prefix = f".{target.name}-staging-"
    for stale in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(stale, ignore_errors=True)  # left by one that was killed: the lock lets one in at a time
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
