"""Load tests with checked answers. Importing this does not import Locust; `tritium.loadtest.users` does."""

from ._compare import Comparison, Difference, compare_reports
from ._errors import LoadError, LoadInterrupted
from ._figures import Figures
from ._objectives import Verdict
from ._observer import Work
from ._plan import Stage
from ._report import write_report
from ._result import Level, LoadReport, LoadResult, Second, StageResult
from ._run import join_run, run_suite
from ._space import Knobs
from ._suites import SUITES
from ._trial import Trial
from ._tune import parse_budget, tune
from ._tuned import TuneResult, apply

__all__ = [
    "SUITES",
    "Comparison",
    "Difference",
    "Figures",
    "Knobs",
    "Level",
    "LoadError",
    "LoadInterrupted",
    "LoadReport",
    "LoadResult",
    "Second",
    "Stage",
    "StageResult",
    "Trial",
    "TuneResult",
    "Verdict",
    "Work",
    "apply",
    "compare_reports",
    "join_run",
    "parse_budget",
    "run_suite",
    "tune",
    "write_report",
]
