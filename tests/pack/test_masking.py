import numpy as np
import pytest

from tokenmill.rows.masking import MaskSettings, mask_batch
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.token_flags import CONTROL, word_starts

MASK = 4
TOKENS = MaskSettings(0.15, whole_word=False)
WORDS = MaskSettings(0.15, whole_word=True)


@pytest.fixture(scope="module")
def split(pack_documents, random_documents):
    uri = pack_documents(
        random_documents(1500, seed=3), sequence_length=128, task="masked-lm", overlap_tokens=4
    )
    return PackedSplit(uri, "train")


@pytest.fixture(scope="module")
def whole(split):
    return split.read(np.arange(split.rows))


def draw(whole, flags, settings=TOKENS, rows=None, epoch=0, seed=11):
    rows = np.arange(len(whole.inputs)) if rows is None else rows
    batch = type(whole)(*(a[rows] for a in whole))
    return mask_batch(batch, rows, np.full(len(rows), epoch), seed, settings, flags)


def within(count, share, of):
    """Five standard deviations of a binomial count."""
    return abs(count - share * of) <= 5 * np.sqrt(of * share * (1 - share))


def test_80_10_10_of_15_percent(whole, flags):
    batch = draw(whole, flags)
    candidates, drawn = whole.loss_weights > 0, batch.loss_weights > 0
    assert within(drawn.sum(), 0.15, candidates.sum())
    hidden = drawn & (batch.inputs == MASK)
    changed = drawn & (batch.inputs != MASK) & (batch.inputs != batch.targets)
    kept = drawn & (batch.inputs == batch.targets)
    total = drawn.sum()
    assert within(hidden.sum(), 0.8, total)
    assert within(changed.sum(), 0.1 * (1 - 1 / 284), total)
    assert within(kept.sum(), 0.1 + 0.1 / 284, total)
    assert len(np.unique(batch.inputs[changed])) > 250  # of 284 ordinary tokens


@pytest.mark.parametrize("settings", [TOKENS, WORDS], ids=["tokens", "words"])
def test_targets_are_the_originals_and_nothing_else_is_touched(whole, flags, settings):
    batch = draw(whole, flags, settings)
    np.testing.assert_array_equal(batch.targets, whole.inputs)
    drawn = batch.loss_weights > 0
    np.testing.assert_array_equal(batch.inputs[~drawn], whole.inputs[~drawn])
    assert not (drawn & (whole.loss_weights == 0)).any()  # frame, context and padding
    assert (flags[whole.inputs[drawn]] & CONTROL == 0).all()
    assert set(np.unique(batch.inputs[drawn & (batch.inputs < 16)])) == {MASK}
    for name in ("segment_ids", "positions"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(whole, name))


def test_words_are_hidden_as_a_whole(whole, flags):
    batch = draw(whole, flags, WORDS)
    drawn, candidates = batch.loss_weights > 0, whole.loss_weights > 0
    starts = word_starts(whole.inputs, flags)
    follows = candidates[:, 1:] & candidates[:, :-1] & ~starts[:, 1:]
    follows &= whole.segment_ids[:, 1:] == whole.segment_ids[:, :-1]
    assert follows.sum() > 1000
    np.testing.assert_array_equal(drawn[:, 1:][follows], drawn[:, :-1][follows])
    assert 0.13 < drawn.sum() / candidates.sum() < 0.17
    alone = draw(whole, flags, TOKENS).loss_weights > 0
    assert (alone[:, 1:][follows] != alone[:, :-1][follows]).any()


def test_the_draw_depends_on_seed_epoch_and_row_alone(whole, flags):
    batch = draw(whole, flags)
    backwards = np.arange(len(whole.inputs))[::-1]
    for a, b in zip(draw(whole, flags, rows=backwards), batch, strict=True):
        np.testing.assert_array_equal(a, b[::-1])
    others = [draw(whole, flags, epoch=1), draw(whole, flags, seed=12)]
    for other in others:
        both = (other.loss_weights > 0) & (batch.loss_weights > 0)
        assert within(both.sum(), 0.15**2, (whole.loss_weights > 0).sum())
    # Rows that are equal are hidden differently.
    same = type(whole)(*(np.repeat(a[:1], 2, axis=0) for a in whole))
    pair = mask_batch(same, np.array([0, 1]), np.zeros(2, int), 11, TOKENS, flags)
    assert not np.array_equal(pair.loss_weights[0], pair.loss_weights[1])
