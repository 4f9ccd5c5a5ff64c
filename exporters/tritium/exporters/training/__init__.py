"""Training a torch module on arrays: mini-batches, penalties, early stopping, cross-validation, learning curves.

What prepares the data is scikit-learn's own: ``train_test_split``, ``StandardScaler``, ``SimpleImputer``.
"""

from ._cross_validation import CrossValidation, cross_validate
from ._errors import TrainingError
from ._history import History
from ._seeds import seeded
from ._train import evaluate, train

__all__ = ["CrossValidation", "History", "TrainingError", "cross_validate", "evaluate", "seeded", "train"]
