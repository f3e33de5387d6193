"""The ids that every tokenmill vocabulary has, whatever its size and type.

Control tokens come first, so that their ids are constants. Text never encodes to one of them: a
text that spells "<mask>" is split like any other text. After them come the user's symbols
(tokenizer.user_symbols), then the 256 bytes of byte fallback, then what was learned.

| id | token | used by |
| --- | --- | --- |
| 0 | `<pad>` | free slots of a row |
| 1 | `<unk>` | nothing: byte fallback knows every text; SentencePiece wants it |
| 2 | `<s>` | begins a document, in causal-lm |
| 3 | `</s>` | ends a document, in causal-lm |
| 4 | `<mask>` | stands for a hidden token, in masked-lm |
| 5 | `<cls>` | begins an example, in masked-lm and sequence classification |
| 6 | `<sep>` | ends a sentence or an example, in masked-lm and sequence classification |
| 7-15 | `<reserved_0>` to `<reserved_8>` | nothing: for users, after training |
"""

PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3
MASK_ID, CLS_ID, SEP_ID = 4, 5, 6
FIRST_RESERVED_ID = 7
RESERVED_TOKENS = 9
"""Ids that nothing uses; their embeddings exist, so that a user can give them a meaning."""

CONTROL_TOKENS = (
    "<pad>", "<unk>", "<s>", "</s>", "<mask>", "<cls>", "<sep>",
    *(f"<reserved_{i}>" for i in range(RESERVED_TOKENS)),
)  # fmt: skip
"""Control tokens; the place of each is its id."""

CONTROL_COUNT = len(CONTROL_TOKENS)
"""Ids from 0 to CONTROL_COUNT - 1 never come out of text; draw random tokens above them."""

UNLEARNED_TOKENS = CONTROL_COUNT + 256
"""Tokens that are not learned, without the user's symbols: control tokens and bytes."""
