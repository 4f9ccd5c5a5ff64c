"""Mini-batch training of a torch module on arrays."""

from __future__ import annotations

import copy
import math
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tritium.client import InputError

from ._errors import TrainingError
from ._history import History
from ._rows import Array, Inputs, Rows, form, rows_of
from ._seeds import seeded
from ._settings import is_number, is_whole, suggestion

if TYPE_CHECKING:
    import torch

Loss = Callable[[Any, "torch.Tensor"], "torch.Tensor"]
Metric = Callable[[Array, Array], float]

_OPTIMIZERS = {"adam": "Adam", "sgd": "SGD", "rmsprop": "RMSprop", "adagrad": "Adagrad"}
_SCHEDULES = ("constant", "cosine")
_REPORTS = 8
_EVALUATION_ROWS = 1024


def train(
    module: torch.nn.Module,
    inputs: Inputs,
    targets: Array,
    *,
    loss: Loss,
    optimizer: str = "adam",
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    epochs: int = 10,
    l1: float = 0.0,
    l2: float = 0.0,
    validation: float | tuple[Inputs, Array] | None = None,
    patience: int | None = None,
    schedule: str = "constant",
    metrics: Mapping[str, Metric] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> History:
    """Train a module in place, and leave it in eval mode.

    Args:
        module: takes a batch of the inputs and returns what `loss` takes, in train mode and in eval mode alike. It is
            trained on the device where it is. Make it within ``seeded``, so that its first weights can be had again.
        inputs: an array of shape (rows, …), or several: a tuple or list for ``forward``'s arguments in their order, a
            mapping for its arguments by name. Floats take the dtype of the module's parameters.
        targets: of shape (rows, …), as `loss` takes them; floats as above.
        loss: of what the module returns and the targets: a mean over the rows.
        optimizer: ``adam``, ``sgd``, ``rmsprop`` or ``adagrad``, each as torch has it.
        learning_rate: at the start.
        batch_size: rows a step.
        epochs: passes over all rows, each in a new order; with `patience`, at most.
        l1: adds l1 · Σ|w| to the loss of a batch. Penalties are on weights, that is on parameters of two or more axes:
            biases and the scales of normalisations go free.
        l2: adds l2 · Σw², as the optimizer's ``weight_decay`` of twice that.
        validation: rows that are not trained on: their share, from 0 to 1, split off at random; or inputs and targets.
        patience: stop when the validation loss has not fallen for so many epochs, and in any case take the weights
            of the best epoch at the end. None trains to the last epoch and keeps its weights.
        schedule: of the learning rate: ``constant``, or along a ``cosine`` from epoch to epoch down to zero.
        metrics: by name, computed on the validation rows after each epoch, from the targets and the module's outputs:
            arrays, in scikit-learn's order.
        seed: of the split, the order of the rows and dropout.
        progress: called with a line every now and then.

    Returns:
        The settings and learning curves.

    Raises:
        InputError: an argument cannot be used, or module, loss and arrays do not fit each other.
        TrainingError: the loss is no longer a finite number.
    """
    counts = {"batch_size": batch_size, "epochs": epochs} | ({} if patience is None else {"patience": patience})
    _check(optimizer, schedule, learning_rate, {"l1": l1, "l2": l2}, counts)
    if patience is not None and validation is None:
        raise InputError("The 'patience' parameter of train needs 'validation': it waits for the loss of those rows")
    if metrics and validation is None:
        raise InputError("The 'metrics' parameter of train needs 'validation': metrics are of rows not trained on")
    _check_names(metrics or {})
    rows = rows_of(inputs, targets, module, where="train")
    started = time.perf_counter()
    with seeded(seed), _shapes_must_agree():
        rows, held_out = _split(rows, validation, module, seed)
        run = _run(
            module,
            _Training(
                loss=loss,
                optimizer=_optimizer(module, optimizer, learning_rate, l2),
                batch_size=batch_size,
                epochs=epochs,
                l1=l1,
                patience=patience,
                cosine=schedule == "cosine",
                metrics=metrics or {},
                seed=seed,
                progress=progress or (lambda _line: None),
            ),
            rows,
            held_out,
        )
    return History(
        settings={
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "schedule": schedule,
            "batch_size": batch_size,
            "epochs": epochs,
            "l1": l1,
            "l2": l2,
            "patience": patience,
        },
        seed=seed,
        curves=run.curves,
        best_epoch=run.best_epoch,
        stopped_early=run.stopped_early,
        rows=len(rows),
        validation_rows=0 if held_out is None else len(held_out),
        seconds=round(time.perf_counter() - started, 3),
        versions=_versions(),
    )


def evaluate(
    module: torch.nn.Module,
    inputs: Inputs,
    targets: Array,
    *,
    loss: Loss,
    metrics: Mapping[str, Metric] | None = None,
) -> dict[str, float]:
    """The loss of a module, ``loss``, and each metric by its name, on rows that it was not trained on.

    Args:
        module: as in ``train``; it is left in eval mode.
        inputs: as in ``train``.
        targets: as in ``train``.
        loss: as in ``train``.
        metrics: as in ``train``.

    Raises:
        InputError: module, loss and arrays do not fit each other.
    """
    _check_names(metrics or {})
    with _shapes_must_agree():
        return _evaluate(module, rows_of(inputs, targets, module, where="evaluate"), loss, metrics or {})


@dataclass(frozen=True, kw_only=True)
class _Training:
    loss: Loss
    optimizer: torch.optim.Optimizer
    batch_size: int
    epochs: int
    l1: float
    patience: int | None
    cosine: bool
    metrics: Mapping[str, Metric]
    seed: int
    progress: Callable[[str], None]


@dataclass(frozen=True)
class _Run:
    curves: dict[str, list[float]]
    best_epoch: int | None
    stopped_early: bool


def _run(module: torch.nn.Module, training: _Training, rows: Rows, held_out: Rows | None) -> _Run:
    import torch

    schedule = (
        torch.optim.lr_scheduler.CosineAnnealingLR(training.optimizer, training.epochs) if training.cosine else None
    )
    order = np.random.default_rng(training.seed)
    curves: dict[str, list[float]] = {}
    best_epoch, best_loss, best_weights = None, math.inf, None
    stopped_early = False
    for epoch in range(1, training.epochs + 1):
        permutation = torch.from_numpy(order.permutation(len(rows)))
        values = {"loss": _epoch(module, training, rows.batches(training.batch_size, permutation), len(rows))}
        if held_out is not None:
            found = _evaluate(module, held_out, training.loss, training.metrics)
            values |= {"validation_loss": found.pop("loss"), **found}
        for name, value in values.items():
            if name.endswith("loss") and not math.isfinite(value):
                raise TrainingError(
                    f"The {name.replace('_', ' ')} is {value} in epoch {epoch} of {training.epochs}. Lower "
                    f"'learning_rate' (now {training.optimizer.param_groups[0]['lr']:g}), scale the inputs, or look at "
                    "what the loss does with values at the edge",
                    epoch=epoch,
                )
            curves.setdefault(name, []).append(value)
        if schedule is not None:
            schedule.step()
        if values.get("validation_loss", math.inf) < best_loss:
            best_epoch, best_loss = epoch, values["validation_loss"]
            if training.patience is not None:
                best_weights = copy.deepcopy(module.state_dict())
        if epoch % max(1, training.epochs // _REPORTS) == 0:
            training.progress(f"epoch {epoch}/{training.epochs}: " + _listed(values))
        if best_epoch is not None and training.patience is not None and epoch - best_epoch >= training.patience:
            stopped_early = epoch < training.epochs
            break
    if not all(parameter.isfinite().all() for parameter in module.parameters()):
        # The very last step did it, so no loss has shown it.
        raise TrainingError("The weights are no longer finite. Lower 'learning_rate' or scale the inputs", epoch=epoch)
    if best_weights is not None:
        module.load_state_dict(best_weights)
        training.progress(f"took the weights of epoch {best_epoch}: validation loss {best_loss:.4g}")
    module.eval()
    return _Run(curves, best_epoch, stopped_early)


def _epoch(module: torch.nn.Module, training: _Training, batches: Iterator[Rows], count: int) -> float:
    """One pass. Returns the mean loss of the rows as they were met, without penalties; it stops where that ends."""
    weights = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    module.train()
    total = 0.0
    for batch in batches:
        training.optimizer.zero_grad()
        value = _loss(module, batch, training.loss)
        total += value.item() * len(batch)
        if not math.isfinite(total):
            return total
        if training.l1:
            value = value + training.l1 * sum(weight.abs().sum() for weight in weights)
        value.backward()
        training.optimizer.step()
    return total / count


def _evaluate(module: torch.nn.Module, rows: Rows, loss: Loss, metrics: Mapping[str, Metric]) -> dict[str, float]:
    import torch

    module.eval()
    total, outputs = 0.0, []
    with torch.inference_mode():
        for batch in rows.batches(_EVALUATION_ROWS):
            given = _called(module, batch)
            total += _applied(loss, given, batch).item() * len(batch)
            if metrics:
                outputs.append(_one(given))
    values = {"loss": total / len(rows)}
    if metrics:
        predicted, truth = torch.cat(outputs).cpu().numpy(), rows.targets.cpu().numpy()
        values |= {name: _finite(name, float(metric(truth, predicted))) for name, metric in metrics.items()}
    return values


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise InputError(f"The metric {name!r} must give a finite number, got {value}: is it defined for these rows?")
    return value


def _one(given: Any) -> torch.Tensor:
    import torch

    if not isinstance(given, torch.Tensor):
        raise InputError(f"The 'metrics' parameter is for modules that return one tensor, got {_form(given)} instead")
    return given


def _loss(module: torch.nn.Module, batch: Rows, loss: Loss) -> torch.Tensor:
    return _applied(loss, _called(module, batch), batch)


def _called(module: torch.nn.Module, batch: Rows) -> Any:
    try:
        return batch.call(module)
    except Exception as exc:
        alone = len(batch) == 1 and "more than 1 value per channel" in str(exc)
        raise InputError(
            f"{type(module).__name__} does not take a batch of the rows ({batch}): {exc}"
            + (
                ". A normalisation such as BatchNorm learns nothing from one row alone: choose another 'batch_size', "
                "by which the last batch has more of them"
                if alone
                else ""
            )
        ) from exc


def _applied(loss: Loss, given: Any, batch: Rows) -> torch.Tensor:
    import torch

    if isinstance(given, torch.Tensor):
        short, long = sorted((tuple(given.shape), tuple(batch.targets.shape)), key=len)
        if long == (*short, 1):
            raise InputError(
                f"The module's output {form(given)} and the targets {form(batch.targets)} must have the same shape, "
                "not one more axis of 1: a loss would compare each row with every other. Give the one "
                "that lacks that axis one, as in targets[:, None], or take it from the other, by squeeze(-1)"
            )
    try:
        value = loss(given, batch.targets)
    except Exception as exc:
        raise InputError(f"The loss does not take the module's output ({_form(given)}) with {batch}: {exc}") from exc
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise InputError(f"The 'loss' parameter must return one number, as a tensor, got {_form(value)} instead")
    return value


def _form(value: Any) -> str:
    import torch

    return form(value) if isinstance(value, torch.Tensor) else type(value).__name__


def _split(
    rows: Rows, validation: float | tuple[Inputs, Array] | None, module: torch.nn.Module, seed: int
) -> tuple[Rows, Rows | None]:
    if validation is None:
        return rows, None
    if isinstance(validation, tuple | list) and len(validation) == 2:
        return rows, rows_of(*validation, module, where="train's 'validation'")
    share: Any = validation
    if not (is_number(share) and 0 < share < 1):
        got = repr(share) if is_number(share) or isinstance(share, str) else _form(share)
        raise InputError(
            "The 'validation' parameter of train must be a share between 0 and 1, or inputs and targets, got "
            f"{got} instead"
        )
    if len(rows) < 2:
        raise InputError("The 'validation' parameter of train splits the rows in two, but there is only one row")
    from sklearn.model_selection import train_test_split

    most = len(rows) - 1
    kept, held_out = train_test_split(
        np.arange(len(rows)), test_size=min(most, math.ceil(share * len(rows))), random_state=seed
    )
    return rows.take(kept), rows.take(held_out)


def _optimizer(module: torch.nn.Module, name: str, learning_rate: float, l2: float) -> torch.optim.Optimizer:
    import torch

    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError(
            f"No parameter of this {type(module).__name__} is to be trained: requires_grad is False on all of them. "
            "module.requires_grad_() sets it, on the module or on the layers that are to learn"
        )
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": 2 * l2},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1]},
    ]
    made: torch.optim.Optimizer = getattr(torch.optim, _OPTIMIZERS[name])(groups, lr=learning_rate)
    return made


def _check(
    optimizer: str, schedule: str, learning_rate: float, penalties: Mapping[str, float], counts: Mapping[str, int]
) -> None:
    for parameter, value, valid in (("optimizer", optimizer, _OPTIMIZERS), ("schedule", schedule, _SCHEDULES)):
        if value not in valid:
            raise InputError(
                f"The {parameter!r} parameter of train must be one of {', '.join(valid)}, got {value!r} instead"
                + suggestion(value, valid)
            )
    if not (is_number(learning_rate) and learning_rate > 0):
        raise InputError(
            f"The 'learning_rate' parameter of train must be a number, more than 0, got {learning_rate!r} instead"
        )
    for parameter, penalty in penalties.items():
        if not (is_number(penalty) and penalty >= 0):
            raise InputError(
                f"The {parameter!r} parameter of train must be a number, 0 or more, got {penalty!r} instead"
            )
    for parameter, count in counts.items():
        if not (is_whole(count) and count >= 1):
            raise InputError(
                f"The {parameter!r} parameter of train must be a whole number, 1 or more, got {count!r} instead"
            )


def _check_names(metrics: Mapping[str, Metric]) -> None:
    if taken := metrics.keys() & {"loss", "validation_loss"}:
        raise InputError(f"A metric cannot be called {min(taken)!r}: that is what the loss itself is recorded as")


@contextmanager
def _shapes_must_agree() -> Iterator[None]:
    """Where targets of shape (rows,) meet outputs of shape (rows, 1), torch warns and learns nonsense: refuse it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Using a target size", category=UserWarning)
        yield


def _versions() -> dict[str, str | int]:
    import torch

    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in values.items())
