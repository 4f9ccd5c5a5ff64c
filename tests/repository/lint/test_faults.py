"""Each fault that is planted is found, under the code that is meant for it, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritium.repository.lint import RULES, Severity, lint
from tritium.repository.lint._subjects import VersionFolder

from .faults_of_configs import CONFIGS, NAMES, SCHEDULING
from .faults_of_files import ENSEMBLES, MODEL_FILES, VERSIONS
from .planting import Fault

ALL = [*NAMES, *CONFIGS, *SCHEDULING, *ENSEMBLES, *MODEL_FILES, *VERSIONS]


@pytest.mark.parametrize("planted", ALL, ids=str)
def test_planted_fault_is_found(planted: Fault, good: Path) -> None:
    planted.plant(good)
    found = lint(good)
    assert sorted({finding.code for finding in found}) == sorted(planted.codes), "\n".join(map(str, found))
    for finding in found:
        assert finding.message
        assert finding.fix
        assert finding.severity == RULES[finding.code].severity
        if RULES[finding.code].scope is VersionFolder:
            _, version, *_ = finding.place.relative_to(good).parts
            assert version.isdecimal()


def test_every_rule_has_a_fault_that_it_finds() -> None:
    covered = {code for planted in ALL for code in planted.codes}
    # These have tests of their own, in test_hostile.py and test_lint.py.
    covered |= {"pickle", "link", "odd-file", "hostile-text", "external-data-outside", "not-checked", "label-outside"}
    covered |= {"model-file-outside"}
    assert RULES.keys() - covered == set()


def test_faults_are_at_least_as_severe_as_their_names_say() -> None:
    notes = {rule.code for rule in RULES.values() if rule.severity == Severity.NOTE}
    assert notes == {
        *("repository-empty", "staging-left", "hidden-folder", "policy-missing", "backend-elsewhere", "gpu-only"),
        *("not-checked", "output-undeclared"),
    }
