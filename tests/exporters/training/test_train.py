"""Training: what it reaches, that a rerun gives the same weights, and what it refuses."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tritium.client import InputError
from tritium.exporters.training import TrainingError, evaluate, seeded, train

Array = NDArray[Any]
Iris = tuple[Array, Array]
OPTIMIZERS = {"adam": 0.01, "sgd": 0.1, "rmsprop": 0.01, "adagrad": 0.1}
cross_entropy = nn.functional.cross_entropy
mse = nn.functional.mse_loss


def accuracy(truth: Array, scores: Array) -> float:
    return float((scores.argmax(axis=1) == truth).mean())


def classifier(seed: int = 0) -> nn.Sequential:
    with seeded(seed):
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))


def weights(module: nn.Module) -> Array:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).numpy()


class TestLearning:
    @pytest.mark.parametrize(("optimizer", "learning_rate"), OPTIMIZERS.items())
    def test_each_optimizer_learns_and_a_rerun_gives_the_same_weights_to_the_last_bit(
        self, iris: Iris, optimizer: str, learning_rate: float
    ) -> None:
        reruns = []
        for _ in range(2):
            module = classifier()
            history = train(
                module,
                *iris,
                loss=cross_entropy,
                optimizer=optimizer,
                learning_rate=learning_rate,
                l1=1e-5,
                l2=1e-5,
                epochs=30,
                validation=0.2,
                metrics={"accuracy": accuracy},
            )
            reruns.append(weights(module))
            torch.rand(3)  # what is drawn elsewhere must not matter
        assert reruns[0].tobytes() == reruns[1].tobytes()
        assert history.curves["accuracy"][-1] >= 0.9
        assert history.curves["loss"][-1] < history.curves["loss"][0] / 2

    def test_another_seed_gives_other_weights(self, iris: Iris) -> None:
        one, two = classifier(), classifier()
        train(one, *iris, loss=cross_entropy, epochs=1, seed=0)
        train(two, *iris, loss=cross_entropy, epochs=1, seed=1)
        assert not np.array_equal(weights(one), weights(two))

    def test_one_batch_of_sgd_is_one_step_down_the_gradient(self) -> None:
        inputs, targets = np.array([[1.0], [2.0]]), np.array([[2.0], [4.0]])
        module = nn.Linear(1, 1, bias=False)
        nn.init.constant_(module.weight, 1.0)
        train(module, inputs, targets, loss=mse, optimizer="sgd", learning_rate=0.1, batch_size=2, epochs=1)
        # The mean of 2 (w x - y) x over both rows is -5 at w = 1.
        assert module.weight.item() == pytest.approx(1.5)

    def test_a_cosine_schedule_ends_with_steps_near_zero(self) -> None:
        inputs, targets = np.ones((1, 1)), np.full((1, 1), 1e3)
        steps: dict[str, list[float]] = {}
        for schedule in ("constant", "cosine"):
            module = nn.Linear(1, 1)
            seen: list[float] = []

            def loss(given: torch.Tensor, wanted: torch.Tensor, seen: list[float] = seen) -> torch.Tensor:
                seen.append(given.item())
                return mse(given, wanted)

            train(module, inputs, targets, loss=loss, learning_rate=0.1, epochs=10, schedule=schedule)
            steps[schedule] = np.diff(seen).tolist()
        assert steps["constant"][-1] == pytest.approx(steps["constant"][0], rel=0.05)
        assert abs(steps["cosine"][-1]) < abs(steps["cosine"][0]) / 10

    def test_the_module_is_left_in_eval_mode_and_the_progress_is_told(self, iris: Iris) -> None:
        lines: list[str] = []
        module = classifier()
        train(module, *iris, loss=cross_entropy, epochs=2, validation=0.1, progress=lines.append)
        assert not module.training
        assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
        assert "validation loss" in lines[-1]

    def test_long_training_is_told_in_few_lines(self, iris: Iris) -> None:
        lines: list[str] = []
        train(classifier(), *iris, loss=cross_entropy, epochs=40, progress=lines.append)
        assert len(lines) == 8


class TestPenalties:
    @staticmethod
    def trained(inputs: Array, targets: Array, **penalties: Any) -> nn.Linear:
        with seeded(0):
            module = nn.Linear(4, 1)
        train(module, inputs, targets, loss=mse, learning_rate=0.05, epochs=60, **penalties)
        return module

    @pytest.fixture
    def petals(self, iris: Iris) -> tuple[Array, Array]:
        """The petal's width from the four measures, of which it is one, plus an offset for the bias to learn."""
        return iris[0], iris[0][:, 3:] + 5

    def test_l2_shrinks_the_weights_and_leaves_the_bias(self, petals: tuple[Array, Array]) -> None:
        free, penalised = self.trained(*petals), self.trained(*petals, l2=1.0)
        assert penalised.weight.square().sum() < free.weight.square().sum() / 2
        assert penalised.bias.item() == pytest.approx(5, abs=0.1)

    def test_l2_is_what_ridge_regression_takes_it_for(self, petals: tuple[Array, Array]) -> None:
        from sklearn.linear_model import Ridge

        inputs, targets = petals
        module = nn.Linear(4, 1)
        train(
            module,
            inputs,
            targets,
            loss=mse,
            optimizer="sgd",
            learning_rate=0.1,
            batch_size=len(inputs),
            epochs=500,
            l2=0.5,
        )
        # Ridge minimises the sum over the rows where mse takes the mean.
        ridge = Ridge(alpha=0.5 * len(inputs)).fit(inputs, targets)
        np.testing.assert_allclose(module.weight.detach().numpy(), ridge.coef_.reshape(1, -1), atol=1e-4)
        assert module.bias.item() == pytest.approx(float(np.ravel(ridge.intercept_)[0]), abs=1e-4)

    def test_l1_takes_the_weights_that_do_not_matter_to_zero(self, petals: tuple[Array, Array]) -> None:
        free, penalised = self.trained(*petals), self.trained(*petals, l1=0.1)
        assert penalised.weight.abs().sum() < free.weight.abs().sum()
        assert penalised.weight[0, :2].abs().max() < 0.05
        assert penalised.bias.item() == pytest.approx(5, abs=0.1)

    def test_penalties_are_not_part_of_the_recorded_loss(self, iris: Iris) -> None:
        plain = train(classifier(), *iris, loss=cross_entropy, epochs=1, batch_size=150, l1=0.0)
        penalised = train(classifier(), *iris, loss=cross_entropy, epochs=1, batch_size=150, l1=1.0)
        assert plain.curves["loss"] == penalised.curves["loss"]


class TestValidation:
    def test_a_share_is_split_off_and_never_trained_on(self, iris: Iris) -> None:
        seen: set[bytes] = set()

        class Spy(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = classifier()

            def forward(self, rows: torch.Tensor) -> torch.Tensor:
                if self.training:
                    seen.update(row.numpy().tobytes() for row in rows)
                given: torch.Tensor = self.layers(rows)
                return given

        history = train(Spy(), *iris, loss=cross_entropy, epochs=2, validation=0.2)
        assert (history.rows, history.validation_rows) == (120, 30)
        every = {row.astype(np.float32).tobytes() for row in iris[0]}
        assert len(seen) <= 120 < len(every)

    def test_rows_given_for_validation_are_what_the_metrics_are_of(self, iris: Iris) -> None:
        inputs, targets = iris
        module = classifier()
        history = train(
            module,
            inputs[:100],
            targets[:100],
            loss=cross_entropy,
            epochs=3,
            validation=(inputs[100:], targets[100:]),
            metrics={"accuracy": accuracy, "rows": lambda truth, _scores: len(truth)},
        )
        found = evaluate(module, inputs[100:], targets[100:], loss=cross_entropy, metrics={"accuracy": accuracy})
        assert history.curves["rows"] == [50.0] * 3
        assert history.curves["accuracy"][-1] == found["accuracy"]
        assert history.curves["validation_loss"][-1] == pytest.approx(found["loss"])

    def test_they_may_be_given_as_a_list_and_counts_as_numbers_of_numpy(self, iris: Iris) -> None:
        rows = iris[0][:20], iris[1][:20]
        history = train(classifier(), *iris, loss=cross_entropy, epochs=int(np.int64(1)), validation=list(rows))  # type: ignore[arg-type]
        assert history.validation_rows == 20
        assert train(classifier(), *iris, loss=cross_entropy, epochs=np.int64(1)).epochs == 1  # type: ignore[arg-type]

    def test_early_stopping_keeps_the_weights_of_the_best_epoch(self, iris: Iris) -> None:
        inputs, targets = iris
        held_out = (inputs[100:], targets[100:])
        # Wrong labels in few rows: the longer it learns them by heart, the worse it does on the others.
        noisy = np.where(np.arange(60) % 3 == 0, (targets[:60] + 1) % 3, targets[:60])
        with seeded(0):
            module = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3))
        history = train(
            module,
            inputs[:60],
            noisy,
            loss=cross_entropy,
            learning_rate=0.03,
            epochs=200,
            validation=held_out,
            patience=5,
        )
        losses = history.curves["validation_loss"]
        assert history.stopped_early
        assert history.best_epoch == int(np.argmin(losses)) + 1
        assert history.epochs == history.best_epoch + 5 < 200
        assert evaluate(module, *held_out, loss=cross_entropy)["loss"] == pytest.approx(min(losses))
        assert losses[-1] > min(losses)

    def test_without_patience_the_last_weights_are_kept(self, iris: Iris) -> None:
        inputs, targets = iris
        module = classifier()
        history = train(module, inputs, targets, loss=cross_entropy, epochs=4, validation=0.2)
        assert (history.epochs, history.stopped_early, history.best_epoch) == (4, False, 4)


class Sum(nn.Module):
    """Two arguments, so that names and places matter."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        given: torch.Tensor = self.left(left) + self.right(right)
        return given


class TestInputs:
    @pytest.mark.parametrize(
        "pack",
        [
            lambda left, right: (left, right),
            lambda left, right: [left, right],
            lambda left, right: {"right": right, "left": left},
        ],
        ids=["tuple", "list", "mapping"],
    )
    def test_several_inputs_go_to_their_arguments(self, pack: Callable[[Array, Array], Any]) -> None:
        left, right = np.random.default_rng(0).normal(size=(2, 200, 1))
        module = Sum()
        train(module, pack(left, right), 2 * left - 3 * right, loss=mse, learning_rate=0.05, epochs=30)
        assert module.left.weight.item() == pytest.approx(2, abs=0.05)
        assert module.right.weight.item() == pytest.approx(-3, abs=0.05)

    def test_floats_take_the_dtype_of_the_module_and_whole_numbers_keep_theirs(self) -> None:
        seen: set[torch.dtype] = set()

        def loss(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            seen.update((given.dtype, wanted.dtype))
            return given.square().mean()

        train(nn.Linear(2, 1).double(), np.ones((3, 2), np.float32), np.ones((3, 1)), loss=loss, epochs=1)
        assert seen == {torch.float64}
        train(nn.Embedding(5, 2), np.arange(5), np.arange(5), loss=loss, epochs=1)
        assert seen == {torch.float64, torch.float32, torch.int64}

    def test_the_arrays_are_left_as_they_were(self, iris: Iris) -> None:
        before = [array.copy() for array in iris]
        train(classifier(), *iris, loss=cross_entropy, epochs=1, validation=0.2)
        for array, kept in zip(iris, before, strict=True):
            np.testing.assert_array_equal(array, kept)


SETTINGS: list[tuple[Mapping[str, Any], str]] = [
    ({"optimizer": "adma"}, r"'optimizer'.*adam, sgd, rmsprop, adagrad, got 'adma' instead; did you mean 'adam'\?"),
    ({"optimizer": "SGD"}, r"did you mean 'sgd'\?"),
    ({"schedule": "cosinus"}, r"'schedule'.*constant, cosine.*did you mean 'cosine'\?"),
    ({"learning_rate": 0.0}, r"'learning_rate'.*more than 0, got 0.0"),
    ({"learning_rate": float("nan")}, r"'learning_rate'.*got nan"),
    ({"l1": -1e-3}, r"'l1'.*0 or more, got -0.001"),
    ({"l2": float("inf")}, r"'l2'.*0 or more, got inf"),
    ({"batch_size": 0}, r"'batch_size'.*1 or more, got 0"),
    ({"epochs": 0}, r"'epochs'.*1 or more, got 0"),
    ({"validation": 1.0}, r"'validation'.*between 0 and 1, or inputs and targets, got 1.0"),
    ({"validation": -0.2}, r"'validation'.*got -0.2"),
    ({"patience": 3}, r"'patience'.*needs 'validation'"),
    ({"patience": 0, "validation": 0.2}, r"'patience'.*1 or more.*got 0"),
    ({"metrics": {"accuracy": accuracy}}, r"'metrics'.*needs 'validation'"),
    ({"metrics": {"loss": accuracy}, "validation": 0.2}, r"metric cannot be called 'loss'"),
    ({"epochs": 2.5}, r"'epochs'.*whole number, 1 or more, got 2.5"),
    ({"epochs": True}, r"'epochs'.*got True"),
    ({"batch_size": "8"}, r"'batch_size'.*got '8'"),
    ({"learning_rate": "a"}, r"'learning_rate'.*a number, more than 0, got 'a'"),
    ({"l1": None}, r"'l1'.*a number, 0 or more, got None"),
    ({"patience": 1.5, "validation": 0.2}, r"'patience'.*whole number, 1 or more, got 1.5"),
    ({"validation": "a"}, r"'validation'.*inputs and targets, got 'a' instead"),
    ({"validation": [np.ones((2, 4))]}, r"'validation'.*inputs and targets, got list instead"),
    ({"validation": np.ones((2, 4))}, r"'validation'.*inputs and targets, got ndarray instead"),
    ({"seed": -1}, r"'seed'.*from 0 to 4294967295, got -1"),
]


class TestRefusals:
    @pytest.mark.parametrize(("settings", "message"), SETTINGS, ids=[message for _, message in SETTINGS])
    def test_a_setting_that_cannot_be_is_refused_before_anything_is_trained(
        self, iris: Iris, settings: dict[str, Any], message: str
    ) -> None:
        module = classifier()
        before = weights(module)
        with pytest.raises(InputError, match=message):
            train(module, *iris, loss=cross_entropy, **settings)
        np.testing.assert_array_equal(weights(module), before)

    @pytest.mark.parametrize(
        ("inputs", "targets", "message"),
        [
            (np.ones((3, 4)), np.zeros(2, int), r"same number of rows, got input 0: 3, targets: 2"),
            (np.ones((0, 4)), np.zeros(0, int), r"at least one row"),
            ([], np.zeros(2, int), r"same number of rows, got input 0: 0, targets: 2"),
            ({}, np.zeros(2, int), r"'inputs' parameter of train must hold at least one array"),
            (np.array([[1.0] * 4, [np.nan] * 4]), np.zeros(2, int), r"\(0\).*4 values.*first in row 1.*SimpleImputer"),
            (np.ones((2, 4)), np.array([1.0, np.inf]), r"'targets' parameter.*1 values that are not finite"),
            (np.array([["a"], ["b"]]), np.zeros(2, int), r"array of numbers.*<U1\(2, 1\).*Encode text"),
            (np.ones((2, 3)), np.zeros(2, int), r"Sequential does not take.*float32\(2, 3\)"),
            (np.ones((2, 4)), np.zeros((2, 5, 5), int), r"The loss does not take.*float32\(2, 3\).*int64\(2, 5, 5\)"),
        ],
        ids=[
            "lengths differ",
            "no rows",
            "an empty list",
            "an empty mapping",
            "NaN in the inputs",
            "inf in the targets",
            "text",
            "columns",
            "loss",
        ],
    )
    def test_rows_that_cannot_be_trained_on_are_refused_by_what_is_wrong_with_them(
        self, inputs: Any, targets: Array, message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            train(classifier(), inputs, targets, loss=cross_entropy)

    def test_targets_that_torch_would_broadcast_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"output float32\(3, 1\) and the targets float32\(3,\) must have"):
            train(nn.Linear(4, 1), np.ones((3, 4)), np.ones(3), loss=mse)

    def test_that_is_so_where_warnings_are_silenced_too(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(InputError, match=r"targets float32\(3,\)"):
                train(nn.Linear(4, 1), np.ones((3, 4)), np.ones(3), loss=mse)

    def test_a_loss_that_is_no_number_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"'loss' parameter must return one number.*float32\(3, 1\)"):
            train(nn.Linear(4, 1), np.ones((3, 4)), np.ones((3, 1)), loss=lambda given, _targets: given)

    @pytest.mark.parametrize("targets", [np.ones(3), np.ones((3, 1, 1))])
    def test_a_loss_of_ones_own_that_would_broadcast_in_silence_is_refused(self, targets: Array) -> None:
        with pytest.raises(InputError, match=r"float32\(3, 1\).*must have the same shape.*targets\[:, None"):
            train(nn.Linear(4, 1), np.ones((3, 4)), targets, loss=lambda given, wanted: ((given - wanted) ** 2).mean())

    def test_a_last_batch_of_one_row_that_a_normalisation_does_not_take_asks_for_another_size(self) -> None:
        module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        with pytest.raises(InputError, match=r"more than 1 value per channel.*BatchNorm.*another 'batch_size'"):
            train(module, np.ones((5, 4)), np.ones((5, 1)), loss=mse, batch_size=2)

    def test_a_module_of_which_nothing_is_to_be_trained_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"No parameter of this Linear is to be trained.*requires_grad_\(\)"):
            train(nn.Linear(4, 1).requires_grad_(False), np.ones((3, 4)), np.ones((3, 1)), loss=mse)

    def test_a_module_without_parameters_is_refused(self) -> None:
        with pytest.raises(InputError, match="ReLU has no parameters"):
            train(nn.ReLU(), np.ones((3, 4)), np.ones(3), loss=mse)

    def test_one_row_cannot_be_split(self) -> None:
        with pytest.raises(InputError, match="only one row"):
            train(nn.Linear(1, 1), np.ones((1, 1)), np.ones((1, 1)), loss=mse, validation=0.5)

    def test_metrics_of_several_outputs_are_refused(self) -> None:
        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(1, 1)

            def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                return self.layer(rows), rows

        rows = np.ones((4, 1))
        with pytest.raises(InputError, match="modules that return one tensor, got tuple"):
            train(
                Two(),
                rows,
                rows,
                loss=lambda given, wanted: mse(given[0], wanted),
                validation=0.5,
                metrics={"mse": lambda _truth, _given: 0.0},
            )

    def test_a_loss_that_runs_away_stops_the_training_and_says_when(self) -> None:
        rows = np.arange(1.0, 41).reshape(-1, 1)
        with pytest.raises(
            TrainingError, match=r"loss is (nan|inf) in epoch \d of 50.*'learning_rate' \(now 1\)"
        ) as caught:
            train(nn.Linear(1, 1), rows, rows, loss=mse, optimizer="sgd", learning_rate=1.0, epochs=50)
        assert 1 <= caught.value.epoch < 10

    def test_weights_that_the_very_last_step_broke_are_not_handed_out(self) -> None:
        rows = np.ones((1, 1))
        with pytest.raises(TrainingError, match="weights are no longer finite") as caught:
            train(
                nn.Linear(1, 1, bias=False),
                rows,
                rows,
                loss=lambda given, _wanted: given.sum() * 1e20,
                optimizer="sgd",
                learning_rate=1e30,
                epochs=1,
            )
        assert caught.value.epoch == 1

    def test_a_metric_that_is_not_defined_for_the_rows_is_refused(self, iris: Iris) -> None:
        with pytest.raises(InputError, match=r"metric 'ratio' must give a finite number, got nan"):
            evaluate(classifier(), *iris, loss=cross_entropy, metrics={"ratio": lambda *_: float("nan")})
