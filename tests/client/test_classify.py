"""The likeliest classes, with the names from the model's label file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tritium.client import Classification, Client, InputError, Model, TensorSpec
from tritium.repository import GoldenCases, Repository
from tritium.server import ADMIN_GROUPS, TritonServer

from .surfaces import SURFACES, use
from .table_models import write_echo

Golden = dict[str, GoldenCases]
SCORES = np.array([[0.1, 0.7, 0.2], [3, 2, 1], [-1, -3, -2]], dtype=np.float32)


@pytest.fixture(scope="module")
def score_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A Triton whose models give back what they get, so that the classes are known."""
    repository = tmp_path_factory.mktemp("classify")
    scores = TensorSpec("scores", "FP32", (3,))
    write_echo(repository / "scores", [scores])
    write_echo(repository / "one", [scores], max_batch_size=0)
    write_echo(repository / "two", [scores, TensorSpec("others", "INT64", (3,))])
    write_echo(repository / "named", [scores])
    config = repository / "named" / "config.pbtxt"
    text = config.read_text(encoding="utf-8")
    config.write_text(
        text.replace('name: "same_scores"', 'name: "same_scores" label_filename: "labels.txt"'), encoding="utf-8"
    )
    (repository / "named" / "labels.txt").write_text("Chinstrap\nAdélie: the first\n", encoding="utf-8")
    with TritonServer(repository, open_groups=ADMIN_GROUPS) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def scorer(request: pytest.FixtureRequest, score_server: TritonServer) -> Iterator[Client]:
    """A client of that server, over each protocol."""
    with score_server.client(protocol=request.param) as connected:
        yield connected


@pytest.fixture
def cnn(client: Client) -> Model:
    """The reference model of digits, whose labels are their names."""
    return client.model("digits_cnn")


@pytest.fixture
def images(digits_golden: Golden) -> NDArray[Any]:
    """Real digits, of shape (cases, 1, 28, 28)."""
    return digits_golden["digits_cnn"].inputs["image"]


def test_batch_gives_a_list_of_classes_for_each_row_with_labels(
    cnn: Model, images: NDArray[Any], digits_golden: Golden, zoo: Repository
) -> None:
    probabilities = digits_golden["digits_cnn"].outputs["probabilities"]
    labels = (zoo.path / "digits_cnn" / "labels.txt").read_text(encoding="utf-8").split()
    rows = cnn.classify(images[:5], top_k=2)
    for row, values in zip(rows, probabilities[:5], strict=True):
        order = np.argsort(-values)[:2].tolist()
        assert [(found.index, found.label) for found in row] == [(index, labels[index]) for index in order]
        np.testing.assert_allclose([found.score for found in row], values[order], atol=1e-5)


def test_single_row_gives_a_list_of_classes(cnn: Model, images: NDArray[Any]) -> None:
    found = cnn.classify(images[0])
    assert [type(item) for item in found] == [Classification] * 3
    assert found == cnn.classify(images[:1])[0]


def test_as_many_classes_are_given_as_there_are_at_most(cnn: Model, images: NDArray[Any]) -> None:
    assert sorted(item.index for item in cnn.classify(images[0], top_k=99)) == list(range(10))


@pytest.mark.parametrize("surface", SURFACES)
def test_both_clients_give_the_same(surface: str, scorer: Client) -> None:
    rows = use(surface, scorer.url, "scores", "classify", SCORES[1:], top_k=2)
    assert rows == [
        [Classification(None, 0, 3.0), Classification(None, 1, 2.0)],
        [Classification(None, 0, -1.0), Classification(None, 2, -2.0)],
    ]


def test_classes_without_a_label_file_have_no_labels(scorer: Client) -> None:
    found = scorer.model("scores").classify(SCORES[1])
    assert found == [Classification(None, 0, 3.0), Classification(None, 1, 2.0), Classification(None, 2, 1.0)]


def test_label_is_its_line_in_the_file_whatever_is_in_it(scorer: Client) -> None:
    found = scorer.model("named").classify(SCORES[0])
    assert [item.label for item in found] == ["Adélie: the first", None, "Chinstrap"]


def test_model_without_a_batch_axis_gives_its_only_classes(scorer: Client) -> None:
    assert [item.index for item in scorer.model("one").classify(SCORES[2], top_k=2)] == [0, 2]


def test_only_output_with_labels_is_the_one_that_is_meant(client: Client, digits_golden: Golden) -> None:
    golden = digits_golden["digits_svm"]
    rows = client.model("digits_svm").classify(golden.inputs["pixels"][:4], top_k=1)
    assert [[item.index for item in row] for row in rows] == golden.outputs["label"][:4].tolist()


@pytest.mark.parametrize(("output", "best"), [("same_scores", 1), ("same_others", 0)])
def test_output_may_be_named(output: str, best: int, scorer: Client) -> None:
    (row,) = scorer.model("two").classify(SCORES[:1], np.array([[9, 8, 7]]), top_k=1, output=output)
    assert row[0].index == best


def test_output_must_be_named_where_it_is_not_clear(scorer: Client) -> None:
    with pytest.raises(InputError) as caught:
        scorer.model("two").classify(SCORES, np.zeros((3, 3), dtype=np.int64))
    assert str(caught.value) == (
        "The 'output' parameter of classify must name one of the outputs of 'two': "
        "same_scores FP32[-1,3], same_others INT64[-1,3]"
    )


def test_unknown_output_is_refused_with_the_closest(scorer: Client) -> None:
    with pytest.raises(InputError, match=r"'two' has no output 'same_score'; .*Did you mean 'same_scores'\?"):
        scorer.model("two").classify(SCORES, np.zeros((3, 3), dtype=np.int64), output="same_score")


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("top_k", [0, -1, True, 1.0, "2"])
def test_top_k_that_is_no_number_of_classes_is_refused(top_k: Any, surface: str, scorer: Client) -> None:
    with pytest.raises(InputError, match="The 'top_k' parameter of classify must be 1 or more, got"):
        use(surface, scorer.url, "scores", "classify", SCORES, top_k=top_k)


@pytest.mark.parametrize("surface", SURFACES)
def test_no_rows_are_refused_and_the_server_lives_on(surface: str, scorer: Client) -> None:
    with pytest.raises(InputError, match=r"classify\(\) of 'scores' needs at least one row"):
        use(surface, scorer.url, "scores", "classify", SCORES[:0])
    assert scorer.is_ready("scores")
