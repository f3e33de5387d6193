"""The section [tokenizer]: the SentencePiece vocabulary."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tokenmill.config_model import PositiveInt, Section

ModelType = Literal["bpe", "unigram", "wordpiece", "byte-level-bpe"]
TRAINED_TYPES = ("bpe", "unigram")
LEAST_VOCAB_SIZE = 300


class TokenizerConfig(Section):
    """The SentencePiece vocabulary."""

    model_type: ModelType = "bpe"
    """Kind of subwords. bpe (merged pairs) and unigram (pieces chosen by likelihood) are trained
    here; wordpiece and byte-level-bpe only come with path."""
    vocab_size: Annotated[int, Field(ge=LEAST_VOCAB_SIZE, le=1_000_000)] = 8192
    """Tokens in all: 256 of them are bytes, 16 control tokens. `tokenmill tokenizer sweep` helps
    to choose."""
    sample_bytes: PositiveInt = 20_000_000
    """Train on at most about this much text."""
    source_weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """How often text of a source is in the sample, in relation to others; 1 where not named."""
    user_symbols: tuple[str, ...] = ()
    """Strings that are always one token, such as "<URL>"; without white space."""
    path: str | None = None
    """An existing tokenizer to use instead of training one: a SentencePiece model (.model), or a
    Hugging Face directory, its tokenizer.json or vocab.txt; model_type and vocab_size are then
    the tokenizer's."""
    chat_template: str | None = None
    """How conversations (corpus.messages_field) are written: a Jinja file, or "chatml"; None takes
    the imported tokenizer's own, and ChatML where there is none."""
    sampling_alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    """Unigram: draw the split of each training document, by probability to the power of this
    (subword regularization; 0.1 is usual); None takes the best split."""
    bpe_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """BPE: probability to leave a merge out in a training document (0.1 is usual)."""

    @model_validator(mode="after")
    def _check_sampling(self) -> "TokenizerConfig":
        if self.sampling_alpha is not None and self.model_type != "unigram":
            raise ValueError("sampling_alpha is for unigram models; set bpe_dropout for bpe")
        if self.bpe_dropout and self.model_type != "bpe":
            raise ValueError("bpe_dropout is for bpe models; set sampling_alpha for unigram")
        if self.path is None and self.model_type not in TRAINED_TYPES:
            raise ValueError(f"{self.model_type} can be imported (path), not trained")
        if self.path is not None and (self.source_weights or self.user_symbols):
            raise ValueError("with path nothing is trained: leave source_weights, user_symbols out")
        return self

    @property
    def regularization_alpha(self) -> float | None:
        """The alpha of random splits (components/tokenize/subword_regularization.py), or None."""
        if self.model_type == "unigram":
            return self.sampling_alpha
        return self.bpe_dropout or None
