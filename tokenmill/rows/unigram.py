"""The baseline that a model must beat: frequencies of tokens, or of classes, no context."""

import math

import numpy as np


def unigram_nll(train_counts: np.ndarray, eval_counts: np.ndarray) -> float:
    """Sum the negative log-likelihood, nats, of the eval tokens by frequencies in training.

    Probabilities are add-one smoothed (Laplace), so that a token unseen in training costs a
    finite number of nats. Document ends count as tokens on both sides where they are targets.

    Args:
        train_counts: How often each id is a target in training, int [vocab_size].
        eval_counts: The same for the eval split.
    """
    probabilities = (train_counts + 1.0) / (train_counts.sum() + len(train_counts))
    return -float(eval_counts @ np.log(probabilities))


def unigram_baseline(
    train_counts: np.ndarray, eval_counts: np.ndarray, eval_bytes: int, task: str
) -> dict[str, float]:
    """Measure what the unigram model reaches at a task, in the task's own measure.

    Every token of the text is as likely to be hidden as any other, so its perplexity on the hidden
    tokens is that on all, up to the chance of the draw.

    Args:
        train_counts: How often each id is a target (or could be one) in training; of a
            classifier, documents of each class.
        eval_counts: The same for the eval split.
        eval_bytes: Bytes of the eval text.
        task: "causal-lm", "masked-lm" or "classification".

    Returns:
        `unigram_bits_per_byte`, or `unigram_perplexity` per hidden token; or what the classes'
        shares in training reach: `prior_log_loss` (nats a document) and `majority_accuracy`.
        Nothing where the eval split has nothing to guess.
    """
    nll, total = unigram_nll(train_counts, eval_counts), int(eval_counts.sum())
    if not total or not eval_bytes:
        return {}
    if task == "classification":
        hits = int(eval_counts[np.argmax(train_counts)])
        return {"prior_log_loss": nll / total, "majority_accuracy": hits / total}
    if task == "masked-lm":
        return {"unigram_perplexity": math.exp(nll / total)}
    return {"unigram_bits_per_byte": nll / math.log(2) / eval_bytes}
