"""What the Evaluator slices by."""

import numpy as np
import pytest
import tensorflow_model_analysis as tfma

from components.evaluate.slices import add_slice_features, length_name
from tokenmill.records.documents import document_batch, encode_documents


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


def test_a_batch_gets_its_lengths_and_the_languages_that_curation_found():
    # No language identification would find these of such texts.
    languages = [b"en", b"zh", b"und"]
    documents = document_batch(
        [b"1", b"2", b"3"], [b"s"] * 3, [b"x = 1", b"1" * 5000, b"Guten Tag!"], languages=languages
    )
    extracts = {
        tfma.INPUT_KEY: np.array([record for _, record in encode_documents(documents)], object),
        tfma.FEATURES_KEY: {"source": np.array([[b"s"]] * 3, object)},
        "other": 1,
    }
    added = add_slice_features(extracts)
    features = added[tfma.FEATURES_KEY]
    assert features["language"].tolist() == [[code] for code in languages]
    assert features["length"].tolist() == [[b"under 1 kB"], [b"4-16 kB"], [b"under 1 kB"]]
    assert features["source"].tolist() == [[b"s"]] * 3
    assert added["other"] == 1
    assert "length" not in extracts[tfma.FEATURES_KEY]  # the batch given is not changed
