"""What happens to a repository after publishing: which versions are served, and which are taken out of sight.

Each operation ends in one rename, so that whoever reads the repository sees it as it was or as it is to be.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.client import InputError

from ._config import check_fits, config_text
from ._errors import RepositoryError
from ._repository import CONFIG_NAME, RETIRED, Repository, locked, opened, sync


@dataclass(frozen=True, kw_only=True)
class VersionPolicy:
    """Which of a model's versions are served: the latest ones, certain ones, or, if neither is given, all.

    Attributes:
        latest: how many, counted from the highest number down.
        specific: their numbers.

    Raises:
        InputError: both are given.
    """

    latest: int | None = None
    specific: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.latest is not None and self.specific is not None:
            raise InputError("A VersionPolicy takes 'latest' or 'specific', or neither for all versions, got both")

    @classmethod
    def of(cls, config: ModelConfig) -> VersionPolicy:
        """The policy of a config; without one, Triton serves the latest version."""
        policy = config.version_policy
        match policy.WhichOneof("policy_choice"):
            case "all":
                return cls()
            case "specific":
                return cls(specific=tuple(policy.specific.versions))
            case "latest":
                return cls(latest=policy.latest.num_versions)
        return cls(latest=1)

    def served(self, versions: Sequence[int]) -> list[int]:
        """Which of these versions are served, in ascending order."""
        if self.specific is not None:
            return sorted(set(versions) & set(self.specific))
        ascending = sorted(versions)
        return ascending if self.latest is None else ascending[len(ascending) - min(self.latest, len(ascending)) :]

    def set_in(self, config: ModelConfig) -> None:
        """Write it into a config."""
        config.ClearField("version_policy")
        if self.specific is not None:
            config.version_policy.specific.versions.extend(sorted(set(self.specific)))
        elif self.latest is not None:
            config.version_policy.latest.num_versions = self.latest
        else:
            config.version_policy.all.SetInParent()

    def __str__(self) -> str:
        """As in ``latest 2``, ``specific 1, 3`` or ``all``."""
        if self.specific is not None:
            return f"specific {_listed(self.specific)}"
        return "all" if self.latest is None else f"latest {self.latest}"


def served_versions(repository: str | Path | Repository, model: str) -> list[int]:
    """The versions that a server loads, by the model's `version_policy`, in ascending order.

    Raises:
        ConfigError: the config is missing, or cannot be read.
        InputError: there is no such model.
    """
    repository = opened(repository)
    return VersionPolicy.of(repository.config(model)).served(repository.versions(model))


def set_version_policy(repository: str | Path | Repository, model: str, policy: VersionPolicy) -> list[int]:
    """Say which versions are served. A server that runs takes it over when it loads the model again.

    Returns:
        The versions that are served from now on.

    Raises:
        InputError: the policy names a version that is not there or serves none, or there is no such model.
        ConfigError: the config is missing, or cannot be read.
        RepositoryError: the config cannot be written.
    """
    repository = opened(repository)
    with _changing(repository, model):
        versions = repository.versions(model)
        if absent := sorted(set(policy.specific or ()) - set(versions)):
            raise InputError(
                f"There is no version {absent[0]} of {model!r} in {repository.path}; it has {_listed(versions)}"
            )
        if not policy.served(versions):
            raise InputError(f"With the policy {policy}, no version of {model!r} would be served")
        config = repository.config(model)
        policy.set_in(config)
        _write(repository.path / model, config)
        return policy.served(versions)


def roll_back(repository: str | Path | Repository, model: str, version: int | None = None) -> int:
    """Serve an older version, alone.

    The next version that is published is served again as its config says. So is every version after
    `set_version_policy(repository, model, VersionPolicy(latest=1))`.

    Args:
        repository: where the model is.
        model: its name.
        version: the version to go back to; by default the one before the latest that is served.

    Returns:
        The version that is served from now on.

    Raises:
        InputError: there is no such model, version or older version.
        ConfigError: the config is missing, or cannot be read.
        RepositoryError: the config cannot be written.
    """
    repository = opened(repository)
    with _changing(repository, model):
        config = repository.config(model)
        chosen = set_back(config, repository.versions(model), version, model=model, place=repository.path)
        _write(repository.path / model, config)
        return chosen


def set_back(config: ModelConfig, versions: Sequence[int], version: int | None, *, model: str, place: object) -> int:
    """Have a config serve an older version, alone; its number.

    Args:
        config: the config, which is changed.
        versions: the versions that there are, in ascending order.
        version: the version to go back to; None for the one before the latest that is served.
        model: the model's name, for errors.
        place: the repository, for errors.

    Raises:
        InputError: there is no such version, or no older one.
    """
    served = VersionPolicy.of(config).served(versions)
    older = [number for number in versions if served and number < served[-1]]
    if version is not None and version not in versions:
        raise InputError(f"There is no version {version} of {model!r} in {place}; it has {_listed(versions)}")
    if not older:
        raise InputError(f"{model!r} serves version {_listed(served)}; there is none before it to go back to")
    if version is not None and version not in older:
        raise InputError(
            f"Version {version} of {model!r} is not older than {served[-1]}, which is served; go back to one of "
            f"{_listed(older)}, or use set_version_policy"
        )
    chosen = older[-1] if version is None else version
    VersionPolicy(specific=(chosen,)).set_in(config)
    return chosen


def retire(repository: str | Path | Repository, model: str, version: int) -> Path:
    """Take a version out of the sight of every server, without deleting anything; `restore` brings it back.

    Returns:
        Where it lies now.

    Raises:
        InputError: there is no such version, it is the last one, or the `version_policy` names it.
        ConfigError: the config is missing, or cannot be read.
        RepositoryError: it cannot be moved.
    """
    repository = opened(repository)
    with _changing(repository, model):
        folder = repository.version_folder(model, version)
        if len(repository.versions(model)) == 1:
            raise InputError(
                f"Version {version} is the only one of {model!r}: nothing would be left to serve. Publish another "
                "first, or move the model's folder out of the repository"
            )
        policy = VersionPolicy.of(repository.config(model))
        if version in (policy.specific or ()):
            raise InputError(
                f"Version {version} of {model!r} is served by name ({policy}); say first what is to be served "
                "instead, with set_version_policy"
            )
        target = repository.path / model / RETIRED / str(version)
        _move(folder, target)
        return target


def restore(repository: str | Path | Repository, model: str, version: int) -> Path:
    """Bring a retired version back.

    Returns:
        Its folder.

    Raises:
        InputError: no such version was retired.
        RepositoryError: it cannot be moved, or there is another version of that number now.
    """
    repository = opened(repository)
    with _changing(repository, model):
        retired = repository.retired_versions(model)
        if version not in retired:
            raise InputError(
                f"There is no retired version {version} of {model!r} in {repository.path}; it has {_listed(retired)}"
            )
        target = repository.path / model / str(version)
        _move(repository.path / model / RETIRED / str(version), target)
        return target


def write_config(repository: str | Path | Repository, model: str, config: ModelConfig) -> None:
    """Replace a model's config, by a rename. Everything but comments is kept as `config` has it.

    Raises:
        InputError: there is no such model, or the config is another model's.
        ConfigError: its inputs or outputs are not those of the model, or the old config cannot be read.
        RepositoryError: it cannot be written.
    """
    repository = opened(repository)
    if config.name not in ("", model):
        raise InputError(f"This is the config of {config.name!r}, not of {model!r}")
    with _changing(repository, model):
        check_fits(config, repository.config(model))
        _write(repository.path / model, config)


@contextmanager
def _changing(repository: Repository, model: str) -> Iterator[None]:
    """One at a time: each of these reads before it writes."""
    repository.config(model)  # says what is wrong with the name, before anything is opened
    try:
        with locked(repository.path / model):
            yield
    except OSError as exc:
        raise RepositoryError(
            f"{repository.path / model} cannot be changed ({exc}). Free some space or mend the permissions and try "
            "again; nothing has changed"
        ) from exc


def _write(folder: Path, config: ModelConfig) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{folder.name}-staging-") as staging:
        aside = Path(staging) / CONFIG_NAME
        aside.write_text(config_text(config), encoding="utf-8")
        aside.chmod((folder / CONFIG_NAME).stat().st_mode & 0o777)
        sync(aside)
        aside.rename(folder / CONFIG_NAME)
    sync(folder)


def _move(folder: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    # A rename would replace an empty folder without a word.
    if target.exists():
        raise RepositoryError(f"There is a version already at {target}; nothing has changed")
    folder.rename(target)
    for parent in (folder.parent, target.parent):
        sync(parent)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
