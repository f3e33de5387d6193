"""Texts that are continued together, each by its own settings: they join and leave at each step."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from serving.gateway.backend import GeneratedToken, SamplingConfig, TokenScore
from serving.gateway.steps import SamplerArrays, Steps, whole_blocks

# Prompt tokens read between two steps: who waits for the next token of an answer waits for these.
_PROMPT_TOKENS_AT_ONCE = 2048


@dataclass(eq=False)
class Text:
    """A text that is continued.

    Attributes:
        prompt: Ids, begin included.
        sampling: How it is continued.
        stop_ids: What ends it.
        generated: The answer so far.
        left: Whether nobody waits for it any more; it is dropped before the next step.
    """

    prompt: Sequence[int]
    sampling: SamplingConfig
    stop_ids: frozenset[int]
    generated: list[int] = field(default_factory=list)
    left: bool = False
    _counts: Counter[int] = field(default_factory=Counter)

    @property
    def slots(self) -> int:
        """Return how many tokens of it the cache may have to hold: the last one is never read."""
        return len(self.prompt) + self.sampling.max_new_tokens - 1

    @property
    def is_done(self) -> bool:
        """Return whether it has as many tokens as it may have."""
        return len(self.generated) >= self.sampling.max_new_tokens

    def penalize(self, logits: np.ndarray) -> None:
        """Change the logits [vocabulary] of tokens that were there before."""
        sampling = self.sampling
        if sampling.repetition_penalty != 1.0:
            seen = np.array(sorted({*self.prompt, *self._counts}))
            factor = np.float32(sampling.repetition_penalty)
            logits[seen] = np.where(logits[seen] > 0, logits[seen] / factor, logits[seen] * factor)
        if self._counts and (sampling.presence_penalty or sampling.frequency_penalty):
            ids = np.array(list(self._counts))
            times = np.array(list(self._counts.values()), np.float32)
            logits[ids] -= sampling.presence_penalty + sampling.frequency_penalty * times

    @property
    def has_penalty(self) -> bool:
        """Return whether `penalize` may change anything."""
        s = self.sampling
        return bool(s.presence_penalty or s.frequency_penalty) or s.repetition_penalty != 1.0

    def take(self, token: int, score: TokenScore) -> GeneratedToken:
        """Add a token that was chosen, unless it ends the text."""
        if token in self.stop_ids:
            return GeneratedToken(score, "stop")
        self.generated.append(token)
        if self.has_penalty:
            self._counts[token] += 1
        return GeneratedToken(score, "length" if self.is_done else None)


class Decoding:
    """Continues texts together, a token of each at a time.

    Args:
        steps: The model, and its cache.
        context_length: Tokens of a text at most.
        tokens: Ids that are tokens; logits may have more rows.
        never: Those of them that are never generated.
        max_slots: Slots of all texts together that the cache may have.
        max_texts: Texts that are continued at the same time.
    """

    def __init__(
        self,
        steps: Steps,
        context_length: int,
        tokens: int,
        never: Sequence[int],
        max_slots: int,
        max_texts: int,
    ):
        self._steps, self._context_length = steps, context_length
        self._tokens, self._never = tokens, list(never)
        self._max_slots, self._max_texts = max_slots, max_texts
        self._texts: list[Text] = []  # in the cache, in its order
        self._slots = 0
        self._waiting: deque[Text] = deque()

    @property
    def texts(self) -> int:
        """Return how many texts are in the cache."""
        return len(self._texts)

    @property
    def is_idle(self) -> bool:
        """Return whether there is nothing to do."""
        return not self._texts and not self._waiting

    def fits(self, text: Text) -> bool:
        """Return whether there is room for a text, if it is alone."""
        return self._room(text) <= self._max_slots

    def add(self, text: Text) -> None:
        """Let a text join as soon as there is room for it and for those before it."""
        self._waiting.append(text)

    def advance(self) -> list[tuple[Text, GeneratedToken]]:
        """Let texts leave and join, and make one token of each."""
        kept = [i for i, text in enumerate(self._texts) if not text.left]
        stays = [self._texts[i] for i in kept]
        joining = self._join(stays)
        if not stays and not joining:
            if self._texts:
                self._texts, self._slots = [], 0
                self._steps.clear()
            return []
        # Of those that join the slot behind the prompt is written, too, when the others step.
        needed = [len(t.prompt) + len(t.generated) + (t in joining) for t in [*stays, *joining]]
        slots = whole_blocks(max(needed), self._context_length)
        logits = np.zeros([0, 0], np.float32)
        if joining or len(kept) < len(self._texts) or slots > self._slots:
            try:
                logits = self._steps.change(kept, [text.prompt for text in joining], slots)
            except BaseException:
                self._waiting.extendleft(reversed(joining))  # for `fail` to find
                raise
            self._slots = slots
        self._texts = [*stays, *joining]
        if stays:
            nothing = [0] * len(joining)  # computed in vain, once: they have read all they have
            tokens = [*(text.generated[-1] for text in stays), *nothing]
            positions = [len(text.prompt) + max(len(text.generated) - 1, 0) for text in self._texts]
            stepped = self._steps.step(np.array(tokens, np.int32), np.array(positions, np.int32))
            logits = np.concatenate([stepped[: len(stays)], logits]) if joining else stepped
        return self._choose(logits)

    def fail(self) -> list[Text]:
        """Forget all texts, as what was computed of them is lost; return them."""
        lost = [text for text in (*self._texts, *self._waiting) if not text.left]
        self._texts, self._slots = [], 0
        self._waiting.clear()
        self._steps.clear()
        return lost

    def _room(self, text: Text) -> int:
        return whole_blocks(text.slots, self._context_length)

    def _join(self, stays: list[Text]) -> list[Text]:
        """Take those from the queue for whom there is room, in its order."""
        joining: list[Text] = []
        longest = max((self._room(text) for text in stays), default=0)
        width = 0
        while self._waiting:
            text = self._waiting[0]
            if text.left:
                self._waiting.popleft()
                continue
            texts = len(stays) + len(joining) + 1
            longest = max(longest, self._room(text))
            width = max(width, len(text.prompt))
            together = (len(joining) + 1) * width
            if (
                texts > self._max_texts
                or texts * longest > self._max_slots
                or (joining and together > _PROMPT_TOKENS_AT_ONCE)
            ):
                break
            joining.append(self._waiting.popleft())
        return joining

    def _choose(self, logits: np.ndarray) -> list[tuple[Text, GeneratedToken]]:
        penalized = logits
        if any(text.has_penalty for text in self._texts):
            penalized = logits.copy()
            for row, text in zip(penalized, self._texts, strict=True):
                if text.has_penalty:
                    text.penalize(row)
        each = [text.sampling for text in self._texts]
        if not any(s.temperature for s in each):
            # As `sample` does it; a call of it takes longer than a small model's layer.
            likeliest = penalized[:, : self._tokens].copy()
            likeliest[:, self._never] = -np.inf
            return self._take(logits, likeliest.argmax(axis=1))
        sampler = SamplerArrays(
            np.array([len(text.generated) for text in self._texts], np.int32),
            np.array([s.temperature for s in each], np.float32),
            np.array([s.top_k for s in each], np.int32),
            np.array([s.top_p for s in each], np.float32),
            np.array([s.seed for s in each], np.int32),
        )
        return self._take(logits, self._steps.sample(penalized, sampler))

    def _take(self, logits: np.ndarray, tokens: np.ndarray) -> list[tuple[Text, GeneratedToken]]:
        """Give each text its token, and what is told beside it."""
        made = []
        for text, token, row in zip(self._texts, tokens.tolist(), logits, strict=True):
            likeliest = text.sampling.likeliest
            score = TokenScore(token)
            if likeliest is not None:
                score = score_token(row, token, likeliest, self._tokens)
            result = text.take(token, score)
            text.left = text.left or result.finish_reason is not None
            made.append((text, result))
        return made


def score_token(logits: np.ndarray, token: int, likeliest: int, tokens: int) -> TokenScore:
    """Return a token's log-probability and the likeliest tokens in its place.

    Args:
        logits: float32 [vocabulary].
        token: The token.
        likeliest: How many to name; of equal ones those with the lower id.
        tokens: Ids that are tokens; the others are never named.
    """
    wide = logits.astype(np.float64)
    best = wide.max()
    log_total = best + np.log(np.exp(wide - best).sum())
    named: tuple[tuple[int, float], ...] = ()
    if likeliest:
        known = wide[:tokens]
        count = min(likeliest, len(known))
        least = np.partition(known, len(known) - count)[len(known) - count]
        ids = np.flatnonzero(known >= least)
        ids = ids[np.lexsort((ids, -known[ids]))][:count]
        named = tuple((int(i), float(known[i] - log_total)) for i in ids)
    return TokenScore(token, float(wide[token] - log_total), named)
