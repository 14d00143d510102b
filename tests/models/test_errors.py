import pickle

import pytest

from models import BundleCorrupt, BundleInvalid, ExportFailed, LayerNotFound, ModelError, ModelNotFound

ERRORS: list[ModelError] = [
    BundleCorrupt("/secret/place/tiny/3", "model.onnx", "is missing"),
    BundleInvalid("/secret/place/tiny/3", "input.shape", "must be positive"),
    BundleInvalid("", "architecture.name", "is unknown"),
    ModelNotFound("huge", 2, ["tiny/1", "tiny/3"]),
    ModelNotFound("huge", None, []),
    LayerNotFound("head", ["conv", "classifier"]),
    ExportFailed("no reason"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_errors_travel_between_processes(error: ModelError) -> None:
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is type(error)
    assert str(there) == str(error)
    assert vars(there) == vars(error)


def test_messages_name_the_facts_and_no_path() -> None:
    assert [str(error) for error in ERRORS] == [
        "model tiny/3: file 'model.onnx' is missing",
        "model tiny/3: input.shape: must be positive",
        "model bundle: architecture.name: is unknown",
        "no model 'huge' version 2; available: tiny/1, tiny/3",
        "no model 'huge'; available: none",
        "no layer 'head'; valid layers: conv, classifier",
        "ONNX export failed: no reason",
    ]
