"""Text, tokens and money by language."""

from collections.abc import Mapping

from tokenmill.contracts.ledger import LanguageText
from tokenmill.contracts.packed_rows import PackedManifest


def language_texts(
    packed: Mapping[str, PackedManifest],
    compute_usd: float,
    epochs_by_group: Mapping[str, float],
) -> dict[str, LanguageText]:
    """Divide the packed text and the estimated cost among the languages.

    A language bears the cost by the loss tokens that training reads of it. Where sources have
    weights, one that is read more often counts as often; else all text is read alike.

    Args:
        packed: Manifest of the packed rows by split.
        compute_usd: The estimate, USD.
        epochs_by_group: How often training reads each source, or each bucket of its quality;
            empty without weights.

    Returns:
        Each language of either split, ascending by code. The shares of all add up to 1.
    """
    train, evaluation = packed["train"], packed["eval"]
    read = _loss_tokens_read(train, epochs_by_group)
    all_read = sum(read.values())
    texts = {}
    for language in sorted({*train.by_language, *evaluation.by_language}):
        mine, held_out = (
            manifest.by_language.get(language) or manifest.nothing()
            for manifest in (train, evaluation)
        )
        tokens = mine.tokens + held_out.tokens
        share = read.get(language, 0.0) / all_read if all_read else 0.0
        texts[language] = LanguageText(
            train=mine,
            eval=held_out,
            bytes_per_token=(mine.bytes + held_out.bytes) / tokens if tokens else 0.0,
            token_share=mine.tokens / train.tokens if train.tokens else 0.0,
            cost_share=share,
            compute_usd=share * compute_usd,
        )
    return texts


def _loss_tokens_read(
    train: PackedManifest, epochs_by_group: Mapping[str, float]
) -> dict[str, float]:
    """Count the loss tokens that training reads of each language, but for a common factor."""
    read: dict[str, float] = {}
    if not epochs_by_group:
        return {language: counts.loss_tokens for language, counts in train.by_language.items()}
    for group, by_language in train.loss_tokens_by_group_and_language.items():
        for language, loss_tokens in by_language.items():
            epochs = epochs_by_group.get(group, 0.0)
            read[language] = read.get(language, 0.0) + epochs * loss_tokens
    return read
