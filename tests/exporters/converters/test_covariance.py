from __future__ import annotations

from pathlib import Path

from sklearn.covariance import EllipticEnvelope

from .same import HELD_OUT, IRIS, assert_same


def test_what_lies_outside_the_ellipse_is_the_same(tmp_path: Path) -> None:
    model = EllipticEnvelope(contamination=0.2, random_state=0).fit(IRIS[~HELD_OUT])
    assert set(model.predict(IRIS[HELD_OUT])) == {-1, 1}
    assert_same(model, IRIS[HELD_OUT], tmp_path, {"label", "score"}, atol=1e-4)
