"""Names and texts of tokens, for tokenizers with and without a blank of their own."""

import asyncio
import io

import pytest
import sentencepiece
import tensorflow as tf

from serving.gateway.text_stream import TextStream
from serving.gateway.vocabulary import vocabulary_of
from tokenmill.text.tokenizers.load import load_tokenizer, read_tokenizer

TEXTS = ["The quick brown fox.", " begins with a blank", "  two", "Straße €", "a", "", "\n x "]


class Held:
    """A version's tokenizer, and nothing else."""

    chat_format = None

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self.control_ids, self.token_bytes = tokenizer.control_ids, tokenizer.token_bytes

    async def tokenize(self, texts):
        return self._tokenizer.tokenize(tf.constant(texts)).to_list()


@pytest.fixture(scope="module")
def dummy_prefix():
    """A tokenizer like Llama 2's: it puts a blank before each text."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 30), model_writer=model, vocab_size=330, model_type="bpe",
        byte_fallback=True, remove_extra_whitespaces=False, normalization_rule_name="identity",
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return Held(load_tokenizer(model.getvalue(), "llama"))


@pytest.fixture(params=["tokenmill", "dummy prefix"])
def held(request, exported, dummy_prefix):
    return (
        Held(read_tokenizer(exported.tokenizer)) if request.param == "tokenmill" else dummy_prefix
    )


def test_texts_come_back_whole_and_token_by_token(held):
    async def main():
        vocabulary = await vocabulary_of(held)
        for text, ids in zip(TEXTS, await held.tokenize(TEXTS), strict=True):
            assert vocabulary.text_of(ids) == text
            assert vocabulary.text_of(vocabulary.with_begin(ids)) == text
            stream = TextStream(drop_blank=vocabulary.adds_blank)
            pieces = [stream.push(vocabulary.bytes_of(i), i) for i in ids]
            pieces.append(stream.finish())
            assert "".join(piece.text for piece in pieces) == text
            for begins, i in (token for piece in pieces for token in piece.tokens):
                name = vocabulary.name_of(i)
                if not name.startswith("token_id:"):
                    shown = text[begins : begins + len(name)]
                    assert shown == name or (not begins and f" {text}".startswith(name))

    asyncio.run(main())


def test_the_blank_of_a_tokenizer_is_found(dummy_prefix, exported):
    async def main():
        assert (await vocabulary_of(dummy_prefix)).adds_blank
        assert not (await vocabulary_of(Held(read_tokenizer(exported.tokenizer)))).adds_blank

    asyncio.run(main())


def test_no_two_tokens_have_one_name(held):
    async def main():
        vocabulary = await vocabulary_of(held)
        every = range(len(held.token_bytes))
        assert len({vocabulary.name_of(i) for i in every}) == len(every)
        (ids,) = await held.tokenize(["a fox"])
        names = [vocabulary.name_of(i) for i in ids]
        assert "".join(names).removeprefix(" ") == "a fox"
        assert vocabulary.name_of(held.control_ids.eos) == "</s>"
        assert vocabulary.control_id("</s>") == held.control_ids.eos
        assert vocabulary.control_id("fox") is None
        assert vocabulary.name_of(10**6) == "token_id:1000000"
        assert vocabulary.bytes_of(10**6) == b""

    asyncio.run(main())
