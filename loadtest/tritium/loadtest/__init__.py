"""Load tests with checked answers. Importing this does not import Locust; `tritium.loadtest.users` does."""

from ._batching import BatchingResult, compare_batching
from ._errors import LoadError
from ._result import LoadResult
from ._run import SUITES, run_suite

__all__ = ["SUITES", "BatchingResult", "LoadError", "LoadResult", "compare_batching", "run_suite"]
