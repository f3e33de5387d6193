"""No document reaches another: asked of the model and its loss, on the rows of the packer."""

import numpy as np
import pytest
import tensorflow as tf

from tokenmill.model.decoder import Decoder
from tokenmill.model.shape import ModelShape
from tokenmill.rows.packed_split import PackedSplit

VOCAB, LENGTH = 300, 32


@pytest.fixture(scope="module")
def batch(pack_documents, random_documents):
    """Rows of several documents, cut ones among them, with context before the later parts."""
    documents = random_documents(60, seed=9, longest=50)
    uri = pack_documents(documents, sequence_length=LENGTH, shards=1, overlap_tokens=3)
    split = PackedSplit(uri, "train")
    batch = split.read(np.arange(split.rows))
    assert (batch.segment_ids.max(axis=1) >= 2).sum() > 10
    assert ((batch.loss_weights == 0) & (batch.segment_ids > 0)).any()
    return batch


@pytest.fixture(scope="module")
def losses():
    """Batch -> logits [B, T, V], weighted losses [B, T]; all weights of the model matter."""
    shape = ModelShape(
        layers=2,
        d_model=16,
        heads=2,
        d_ff=32,
        vocab_size=VOCAB,
        sequence_length=LENGTH,
        positions="learned",
        norm="layer",
        use_bias=True,
        mlp="gelu",
        tie_embeddings=True,
    )
    model = Decoder(shape, seed=1)
    rng = np.random.default_rng(2)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(0.0, 0.3, weight.shape) + (weight.name == "gamma"))

    def compute(batch):
        logits = model(batch.inputs, batch.segment_ids, batch.positions)
        nll = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=batch.targets, logits=logits)
        return logits.numpy(), (nll * batch.loss_weights).numpy()

    return compute


def test_a_changed_document_changes_no_logit_and_no_loss_of_the_others(batch, losses):
    logits, nll = losses(batch)
    for segment in range(1, 4):
        mine = batch.segment_ids == segment
        # All tokens of the document become others, as inputs and as targets.
        changed = batch._replace(
            inputs=np.where(mine, 16 + (batch.inputs + 7) % 200, batch.inputs),
            targets=np.where(mine, 16 + (batch.targets + 7) % 200, batch.targets),
        )
        new_logits, new_nll = losses(changed)
        assert np.abs(new_logits - logits)[~mine].max() <= 1e-6
        assert np.abs(new_nll - nll)[~mine].max() <= 1e-6
        asked = mine & (batch.loss_weights > 0)
        assert np.abs(new_nll - nll)[asked].mean() > 0.1  # it is a change that can be seen


def test_no_slot_with_a_loss_asks_for_another_document(batch):
    """A segment's targets are its own inputs, one further; only its end has one of its own."""
    asked = batch.loss_weights > 0
    same = batch.segment_ids[:, :-1] == batch.segment_ids[:, 1:]
    follows = asked[:, :-1] & same
    np.testing.assert_array_equal(batch.targets[:, :-1][follows], batch.inputs[:, 1:][follows])
    assert not asked[batch.segment_ids == 0].any()
