"""A locustfile of one's own: `locust -f locustfile.py --headless -u 4 -t 10s --host http://127.0.0.1:8000`."""

from __future__ import annotations

from tritium.loadtest.users import TritonHttpUser


class Digits(TritonHttpUser):
    """Sends the golden cases of two models in turn, and counts a wrong answer as a failure."""

    models = ("digits_cnn", "digits_svm")
    repository = "model_repository"
