"""Conversations in rows: whole, apart from each other, and answers alone bear a loss."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_documents import TokenizedDocument, in_columns

from components.pack.conversations import measure
from components.pack.job import PackJob
from components.pack.transforms import pack_shard, write_manifest
from tokenmill.rows.packed_split import PackedSplit

VOCAB = 300
FLAGS = np.zeros(VOCAB, np.uint8)
FLAGS[:16] = 1
SIZES = np.full(VOCAB, 3, np.int64)


@st.composite
def conversations(draw):
    """(ids, answers) with answers apart from each other, perhaps none."""
    turns = draw(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 9)), max_size=5))
    spans, at = [], 0
    for prompt, answer in turns:
        # Two answers with nothing between them are one.
        at += prompt if not spans else max(1, prompt)
        spans.append((at, at + answer))
        at += answer
    total = at + draw(st.integers(0, 6))
    ids = draw(st.lists(st.integers(16, VOCAB - 1), min_size=total, max_size=total))
    return ids, tuple(spans)


def expected(ids, spans, length):
    """(tokens that stay, places of those that are learned), said once more in plain words."""
    learnable = [(max(a, 1), b) for a, b in spans if b > 1]
    fitting = [(a, b) for a, b in learnable if b <= length + 1]
    kept = max((b for _, b in fitting), default=0)
    return kept, sorted(i for a, b in fitting for i in range(a, b))


@given(st.lists(conversations(), max_size=12), st.integers(4, 40), st.booleans())
def test_rows_hold_whole_conversations_and_learn_answers(tmp_path_factory, made, length, weighted):
    documents = [
        TokenizedDocument(
            b"%04d" % i, (b"a", b"b")[i % 2], 5 * len(ids), np.array(ids, np.int32), answers=spans
        )
        for i, (ids, spans) in enumerate(made)
    ]
    if not documents:
        return
    weights = {"a": 1.0, "b": 2.0} if weighted else {}
    job = PackJob(
        sequence_length=length,
        vocab_size=VOCAB,
        shards=1,
        conversations=True,
        source_weights=weights,
    )
    uri = tmp_path_factory.mktemp("rows")
    target = str(uri / "Split-train")
    outcome = pack_shard((0, [in_columns(documents)]), target, job, FLAGS, None, SIZES)
    manifest = write_manifest([outcome], target, job, FLAGS)

    wanted = [(ids, *expected(ids, spans, length)) for ids, spans in made]
    kept = [(ids[:end], places) for ids, end, places in wanted if end]
    assert manifest.loss_tokens == sum(len(places) for _, places in kept)
    assert manifest.answer_bytes == manifest.loss_bytes == 3 * manifest.loss_tokens
    assert manifest.tokens == (
        manifest.loss_tokens
        + manifest.prompt_tokens
        + manifest.truncated_tokens
        + manifest.dropped_tokens
    )
    assert manifest.documents == len(kept) + (
        manifest.dropped_empty + manifest.dropped_no_answer + manifest.dropped_too_long
    )
    cut = [1 for ids, end, _ in wanted if 0 < end < len(ids)]
    assert manifest.truncated_conversations == len(cut)
    counts = np.load(uri / "Split-train" / "target_counts.npy")
    learned = [ids[place] for ids, places in kept for place in places]
    assert counts.tolist() == np.bincount(learned, minlength=VOCAB).tolist()

    found = []
    if manifest.rows:
        batch = PackedSplit(str(uri), "train").read(np.arange(manifest.rows))
        for row in range(manifest.rows):
            segments = batch.segment_ids[row]
            for number in range(1, segments.max() + 1):
                mine = segments == number
                assert batch.positions[row][mine].tolist() == list(range(mine.sum()))
                inputs, targets = batch.inputs[row][mine], batch.targets[row][mine]
                assert inputs[1:].tolist() == targets[:-1].tolist()
                weights = batch.loss_weights[row][mine]
                places = (np.flatnonzero(weights) + 1).tolist()
                found.append(([int(inputs[0]), *targets.tolist()], places))
        assert not batch.loss_weights[batch.segment_ids == 0].any()
    assert sorted(found) == sorted((ids, places) for ids, places in kept)


def test_a_long_conversation_is_cut_behind_its_last_answer_that_fits():
    talk = TokenizedDocument(
        b"a", b"s", 9, np.arange(20, 60, dtype=np.int32), answers=((5, 9), (12, 21), (30, 40))
    )
    assert measure(in_columns([talk]), 20).kept_tokens.tolist() == [21]
    assert measure(in_columns([talk]), 19).kept_tokens.tolist() == [9]
    nothing = measure(in_columns([talk]), 7)
    assert nothing.kept_tokens.tolist() == [0]
    assert nothing.reasons["too_long"].tolist() == [True]


def test_large_vocabularies_keep_the_flag_beside_the_id(tmp_path):
    job = PackJob(sequence_length=8, vocab_size=40_000, shards=1, conversations=True)
    assert job.row_format.dtype == "<u4"  # 2 x 40,000 does not fit into two bytes
    ids = np.array([39_999, 1, 39_998], np.int32)
    talk = TokenizedDocument(b"a", b"s", 9, ids, answers=((1, 3),))
    flags = np.zeros(40_000, np.uint8)
    target = str(tmp_path / "Split-train")
    sizes = np.ones(40_000, np.int64)
    outcome = pack_shard((0, [in_columns([talk])]), target, job, flags, None, sizes)
    write_manifest([outcome], target, job, flags)
    batch = PackedSplit(str(tmp_path), "train").read(np.array([0]))
    assert batch.inputs[0, :2].tolist() == [39_999, 1]
    assert batch.targets[0, :2].tolist() == [1, 39_998]
    assert batch.loss_weights[0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("conversations", [True, False])
def test_lost_tokens_stop_the_run(tmp_path, conversations):
    talk = TokenizedDocument(b"a", b"s", 9, np.arange(20, 30, dtype=np.int32), answers=((5, 9),))
    job = PackJob(sequence_length=32, vocab_size=VOCAB, shards=1, conversations=conversations)
    target = str(tmp_path / "Split-train")
    outcome = pack_shard((0, [in_columns([talk])]), target, job, FLAGS, None, SIZES)
    source = outcome.counts.by_source["s"]
    source.tokens += 1
    with pytest.raises(ArithmeticError, match="balance"):
        write_manifest([outcome], target, job, FLAGS)
