"""Load tests with checked answers. Importing this does not import Locust; `tritium.loadtest.users` does."""

from ._compare import Comparison, Difference, compare_reports
from ._errors import LoadError
from ._figures import Figures
from ._objectives import Verdict
from ._observer import Work
from ._plan import Stage
from ._report import write_report
from ._result import Level, LoadReport, LoadResult, Second, StageResult
from ._run import join_run, run_suite
from ._suites import SUITES

__all__ = [
    "SUITES",
    "Comparison",
    "Difference",
    "Figures",
    "Level",
    "LoadError",
    "LoadReport",
    "LoadResult",
    "Second",
    "Stage",
    "StageResult",
    "Verdict",
    "Work",
    "compare_reports",
    "join_run",
    "run_suite",
    "write_report",
]
