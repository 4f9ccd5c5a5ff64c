"""The reference models: one short script each, on real data."""

from ._digits import Digits
from ._digits import load as load_digits
from ._registry import MODELS, Built, ZooModel, build, built, check_names

__all__ = ["MODELS", "Built", "Digits", "ZooModel", "build", "built", "check_names", "load_digits"]
