import numpy as np
import pytest
import sentencepiece

from tokenmill.rows.token_flags import (
    CONTROL,
    ENDS_LINE,
    ENDS_PARAGRAPH,
    ENDS_SENTENCE,
    ENDS_WORD,
    STARTS_WORD,
    flags_of,
    place_ranks,
    token_flags,
    word_starts,
)
from tokenmill.text.tokenizers.load import load_tokenizer


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (" the", STARTS_WORD),
        ("ing", 0),
        (".", STARTS_WORD | ENDS_WORD | ENDS_SENTENCE),
        ("end.)", ENDS_WORD | ENDS_SENTENCE),
        ("a\n", ENDS_WORD | ENDS_LINE),
        ("a.\n\n", ENDS_WORD | ENDS_LINE | ENDS_PARAGRAPH),
    ],
)
def test_flags_of_a_piece(text, flags):
    assert flags_of(text) == flags


def test_every_piece_of_a_trained_vocabulary_has_flags(sentencepiece_model):
    flags = token_flags(load_tokenizer(sentencepiece_model, "m").token_bytes)
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model)
    assert len(flags) == processor.get_piece_size()
    assert (flags[:16] == CONTROL).all()
    assert not (flags[16:] & CONTROL).any()
    line_feed = processor.piece_to_id("<0x0A>")
    assert flags[line_feed] & ENDS_LINE
    assert flags[processor.piece_to_id("<0xC3>")] == 0


def test_places_and_words_of_a_text(sentencepiece_model):
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model)
    flags = token_flags(load_tokenizer(sentencepiece_model, "m").token_bytes)
    ids = np.array(processor.encode("Some words. And a sentence,\nthen a new.\n\nThen words"))
    ranks, starts = place_ranks(ids, flags), word_starts(ids, flags)

    def text_up_to(i):
        return processor.decode(ids[: i + 1].tolist())

    for i, rank in enumerate(ranks.tolist()):
        text = text_up_to(i)
        assert (rank == 4) == (text.endswith("\n\n"))
        assert (rank == 3) == (text.endswith(",\n"))
        if rank == 2:
            assert text.endswith(".")
    assert sorted(set(ranks.tolist())) == [0, 1, 2, 3, 4]
    # What begins a word comes at the start, after a blank, or at or after punctuation.
    for i in np.flatnonzero(starts)[1:]:
        before, here = text_up_to(i - 1), text_up_to(i)[len(text_up_to(i - 1)) :]
        assert not before[-1].isalnum() or not here[0].isalnum()
