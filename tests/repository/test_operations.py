"""Which versions are served, and which are taken out of sight."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tritium.client import InputError, TritiumError
from tritium.repository import (
    Candidate,
    ConfigError,
    Repository,
    RepositoryError,
    VersionPolicy,
    config_text,
    publish,
    read_config,
    restore,
    retire,
    roll_back,
    served_versions,
    set_version_policy,
    write_config,
)
from tritium.repository.lint import lint

MODEL = "plus_one"
# What is in a folder: the bytes of each file, None for each folder.
Snapshot = Callable[[Path], dict[str, bytes | None]]


@pytest.fixture
def published(repository: Repository, candidate: Candidate) -> Repository:
    """A model with the versions 1, 2 and 3, of which the latest is served."""
    publish(repository, candidate)
    for number in ("2", "3"):
        shutil.copytree(repository.path / MODEL / "1", repository.path / MODEL / number)
    return repository


def test_latest_version_is_served_as_published(published: Repository) -> None:
    assert served_versions(published, MODEL) == [3]


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        (VersionPolicy(latest=1), [3]),
        (VersionPolicy(latest=2), [2, 3]),
        (VersionPolicy(latest=9), [1, 2, 3]),
        (VersionPolicy(specific=[3, 1]), [1, 3]),
        (VersionPolicy(), [1, 2, 3]),
    ],
    ids=str,
)
def test_policy_is_what_is_served_and_read_again(
    policy: VersionPolicy, served: list[int], published: Repository
) -> None:
    assert set_version_policy(published, MODEL, policy) == served
    assert served_versions(published, MODEL) == served
    assert str(VersionPolicy.of(published.config(MODEL))) == str(policy).replace("3, 1", "1, 3")
    assert lint(published) == []


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (VersionPolicy(specific=[1, 4]), r"There is no version 4 of 'plus_one' in .*; it has 1, 2, 3$"),
        (VersionPolicy(specific=[]), "With the policy specific none, no version of 'plus_one' would be served"),
        (VersionPolicy(latest=0), "With the policy latest 0, no version of 'plus_one' would be served"),
    ],
    ids=str,
)
def test_policy_that_cannot_be_kept_is_refused(
    policy: VersionPolicy, message: str, published: Repository, snapshot: Snapshot
) -> None:
    before = snapshot(published.path)
    with pytest.raises(InputError, match=message):
        set_version_policy(published, MODEL, policy)
    assert snapshot(published.path) == before


def test_policy_is_latest_or_specific_not_both() -> None:
    with pytest.raises(InputError, match="got both"):
        VersionPolicy(latest=1, specific=[1])


def test_config_without_a_policy_serves_the_latest(published: Repository) -> None:
    config = published.config(MODEL)
    config.ClearField("version_policy")
    write_config(published, MODEL, config)
    assert served_versions(published, MODEL) == [3]


# rolling back


def test_roll_back_serves_the_version_before_alone(published: Repository) -> None:
    assert roll_back(published, MODEL) == 2
    assert served_versions(published, MODEL) == [2]
    assert roll_back(published, MODEL) == 1


def test_roll_back_goes_to_the_version_that_is_named(published: Repository) -> None:
    assert roll_back(published, MODEL, 1) == 1
    assert served_versions(published, MODEL) == [1]


def test_roll_back_changes_the_policy_and_nothing_else(published: Repository, snapshot: Snapshot) -> None:
    before, config = snapshot(published.path), published.config(MODEL)
    roll_back(published, MODEL)
    after = snapshot(published.path)
    path = f"{MODEL}/config.pbtxt"
    config.version_policy.specific.versions.append(2)
    assert (after.pop(path) or b"").decode() == config_text(config)
    assert after == {name: content for name, content in before.items() if name != path}


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (3, "Version 3 of 'plus_one' is not older than 3, which is served; go back to one of 1, 2, or"),
        (4, "There is no version 4 of 'plus_one' in .*; it has 1, 2, 3$"),
    ],
)
def test_roll_back_to_what_is_no_older_version_is_refused(version: int, message: str, published: Repository) -> None:
    with pytest.raises(InputError, match=message):
        roll_back(published, MODEL, version)
    assert served_versions(published, MODEL) == [3]


def test_roll_back_from_the_first_version_is_refused(published: Repository) -> None:
    roll_back(published, MODEL, 1)
    with pytest.raises(InputError, match="serves version 1; there is none before it to go back to"):
        roll_back(published, MODEL)


def test_version_published_after_a_roll_back_is_served(published: Repository, candidate: Candidate) -> None:
    roll_back(published, MODEL)
    publish(published, candidate)
    assert served_versions(published, MODEL) == [4]


# retiring


def test_retired_version_is_out_of_sight_and_whole(published: Repository, snapshot: Snapshot) -> None:
    before = snapshot(published.path / MODEL / "2")
    target = retire(published, MODEL, 2)
    assert published.versions(MODEL) == [1, 3]
    assert published.retired_versions(MODEL) == [2]
    assert snapshot(target) == before
    assert lint(published) == []


def test_restored_version_is_as_it_was(published: Repository, snapshot: Snapshot) -> None:
    before = snapshot(published.path)
    retire(published, MODEL, 3)
    assert served_versions(published, MODEL) == [2]
    assert restore(published, MODEL, 3) == published.path / MODEL / "3"
    assert snapshot(published.path) == before | {f"{MODEL}/.retired": None}


def test_number_of_a_retired_version_is_not_the_next(published: Repository) -> None:
    retire(published, MODEL, 3)
    assert published.next_version(MODEL) == 4


def test_first_version_is_the_next_of_a_model_that_is_not_there(repository: Repository) -> None:
    assert repository.next_version("absent") == 1


def test_unknown_version_cannot_be_retired(published: Repository) -> None:
    with pytest.raises(InputError, match=r"There is no version 4 of 'plus_one' in .*; it has 1, 2, 3$"):
        retire(published, MODEL, 4)


def test_last_version_cannot_be_retired(repository: Repository, candidate: Candidate) -> None:
    publish(repository, candidate)
    with pytest.raises(InputError, match="Version 1 is the only one of 'plus_one': nothing would be left to serve"):
        retire(repository, MODEL, 1)
    assert repository.versions(MODEL) == [1]


def test_version_that_is_served_by_name_cannot_be_retired(published: Repository) -> None:
    set_version_policy(published, MODEL, VersionPolicy(specific=[1, 2]))
    with pytest.raises(InputError, match=r"is served by name \(specific 1, 2\); say first what is to be served"):
        retire(published, MODEL, 2)
    assert published.versions(MODEL) == [1, 2, 3]


def test_version_that_was_not_retired_cannot_be_restored(published: Repository) -> None:
    retire(published, MODEL, 1)
    with pytest.raises(InputError, match=r"There is no retired version 2 of 'plus_one' in .*; it has 1$"):
        restore(published, MODEL, 2)


def test_version_whose_number_is_taken_stays_retired(published: Repository) -> None:
    target = retire(published, MODEL, 1)
    (published.path / MODEL / "1").mkdir()
    with pytest.raises(RepositoryError, match="There is a version already at"):
        restore(published, MODEL, 1)
    assert (target / "model.onnx").is_file()


# configs and labels


def test_written_config_is_read_as_it_was(published: Repository) -> None:
    config = published.config(MODEL)
    config.instance_group[0].count = 3
    config.optimization.graph.level = -1
    config.parameters["execution_mode"].string_value = "0"
    write_config(published, MODEL, config)
    assert published.config(MODEL) == config
    assert (published.path / MODEL / "config.pbtxt").read_text(encoding="utf-8") == config_text(config)


def test_config_by_hand_survives_but_for_comments(published: Repository) -> None:
    path = published.path / MODEL / "config.pbtxt"
    by_hand = f"# by hand\n{path.read_text(encoding='utf-8')}\nmetric_tags {{ key: 'team' value: 'größer' }}\n"
    path.write_text(by_hand, encoding="utf-8")
    before = read_config(path)
    set_version_policy(published, MODEL, VersionPolicy(latest=2))
    after = published.config(MODEL)
    assert after.version_policy.latest.num_versions == 2
    after.version_policy.latest.num_versions = 1
    assert after == before


def test_config_of_another_model_is_refused(published: Repository) -> None:
    config = published.config(MODEL)
    config.name = "other"
    with pytest.raises(InputError, match="This is the config of 'other', not of 'plus_one'"):
        write_config(published, MODEL, config)


def test_config_that_breaks_the_clients_is_refused(published: Repository) -> None:
    config = published.config(MODEL)
    config.input[0].dims[0] = 5
    with pytest.raises(ConfigError, match="Clients rely on them"):
        write_config(published, MODEL, config)


def test_folder_that_cannot_be_written_is_left_as_it_was(
    published: Repository, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(published.path)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    for change in (lambda: roll_back(published, MODEL), lambda: retire(published, MODEL, 1)):
        with pytest.raises(RepositoryError, match=r"cannot be changed .*No space left .*nothing has changed"):
            change()
    assert {name: held for name, held in snapshot(published.path).items() if ".retired" not in name} == before


def test_changes_at_once_do_not_lose_each_other(published: Repository) -> None:
    def change(number: int) -> None:
        try:
            if number % 2:
                retire(published, MODEL, 1)
            else:
                set_version_policy(published, MODEL, VersionPolicy(specific=[1]))
        except TritiumError:
            pass  # whoever comes second finds the version retired, or served by name

    for _ in range(10):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(change, range(4)))
        assert served_versions(published, MODEL)
        if 1 in published.retired_versions(MODEL):
            restore(published, MODEL, 1)
        set_version_policy(published, MODEL, VersionPolicy(latest=1))


@pytest.mark.parametrize("operation", [retire, restore, roll_back])
def test_model_that_is_not_there_is_refused(operation: Callable[..., object], published: Repository) -> None:
    with pytest.raises(InputError, match=r"There is no model 'plus_two' in .*Did you mean 'plus_one'"):
        operation(published, "plus_two", 1)


def test_labels_are_read_in_order(published: Repository) -> None:
    assert published.labels(MODEL, "y") == ["first", "second"]


def test_output_without_labels_is_refused(published: Repository) -> None:
    with pytest.raises(InputError, match="There are no labels for 'z' of 'plus_one'; outputs with labels: y"):
        published.labels(MODEL, "z")


def test_label_file_that_is_not_there_is_an_error(published: Repository) -> None:
    (published.path / MODEL / "labels.txt").unlink()
    with pytest.raises(ConfigError, match=r"The labels of 'y' cannot be read from .*labels\.txt"):
        published.labels(MODEL, "y")


def test_label_file_outside_the_model_is_not_read(published: Repository) -> None:
    config = published.config(MODEL)
    config.output[0].label_filename = "../../secret"
    write_config(published, MODEL, config)
    with pytest.raises(ConfigError, match="The label_filename of a config must be the name of a file"):
        published.labels(MODEL, "y")
