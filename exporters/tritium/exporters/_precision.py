"""What may differ by the precision of a model's weights and tensors."""

from __future__ import annotations

from collections.abc import Iterable

from tritium.repository import Tolerance

# A few units in the last place, over a few layers.
_TOLERANCES = {
    "bfloat16": Tolerance(atol=2e-2, rtol=4e-2),
    "float16": Tolerance(atol=2e-3, rtol=5e-3),
}
_TOLERANCE = Tolerance(atol=1e-5, rtol=1e-5)


def default_tolerance(dtypes: Iterable[str]) -> Tolerance:
    """What the least precise of some numpy dtypes, by name, asks for."""
    names = set(dtypes)
    return next((tolerance for name, tolerance in _TOLERANCES.items() if name in names), _TOLERANCE)
