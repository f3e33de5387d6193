"""What the Evaluator slices by."""

import numpy as np
import pytest
import tensorflow_model_analysis as tfma

from components.evaluate.slices import add_slice_features, length_name


@pytest.mark.parametrize(
    ("byte_count", "name"),
    [
        (0, "under 1 kB"),
        (999, "under 1 kB"),
        (1000, "1-4 kB"),
        (15_999, "4-16 kB"),
        (16_000, "16 kB and more"),
        (10**8, "16 kB and more"),
    ],
)
def test_length_classes_hold_their_lower_end(byte_count, name):
    assert length_name(byte_count) == name


def test_a_batch_gets_its_lengths_and_languages():
    texts = [
        "The committee has decided to postpone the meeting until next week.",
        "Le comité a décidé de reporter la réunion à la semaine prochaine.",
        "x = 1",
        "",
    ]
    encoded = [text.encode() for text in texts]
    extracts = {
        tfma.FEATURES_KEY: {
            "text": np.array([[text] for text in encoded], object),
            "byte_count": np.array([[len(text)] for text in encoded]),
        },
        "other": 1,
    }
    added = add_slice_features(extracts)
    features = added[tfma.FEATURES_KEY]
    assert features["language"].ravel().tolist()[:2] == [b"en", b"fr"]
    assert features["language"].ravel().tolist()[3] == b"uncertain"
    assert set(features["length"].ravel().tolist()) == {b"under 1 kB"}
    assert added["other"] == 1
    assert "length" not in extracts[tfma.FEATURES_KEY]  # the batch given is not changed
