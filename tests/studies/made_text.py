"""Texts of a small grammar, and noise of known kinds."""

import numpy as np

NOUNS = ["river", "mountain", "village", "teacher", "garden", "letter", "window", "doctor"]
VERBS = ["finds", "sees", "builds", "likes", "paints", "remembers", "follows", "opens"]
ADJECTIVES = ["old", "quiet", "green", "small", "famous", "distant", "wooden", "bright"]
LINKS = ["because", "while", "before", "although"]


def clean(rng, sentences=6):
    """Sentences whose every word hints at the next: a verb goes with its noun."""

    def clause():
        noun = rng.integers(len(NOUNS))
        thing = (noun + rng.integers(1, 3)) % len(NOUNS)
        verb = VERBS[(noun + thing) % len(VERBS)]
        return f"the {ADJECTIVES[noun]} {NOUNS[noun]} {verb} the {ADJECTIVES[thing]} {NOUNS[thing]}"

    made = [f"{clause()} {LINKS[rng.integers(4)]} {clause()}." for _ in range(sentences)]
    return " ".join(s[0].upper() + s[1:] for s in made)


def shuffled(rng, text):
    """The same words in any order."""
    return " ".join(rng.permutation(text.split()))


def garbled(rng, text):
    """Letters at random."""
    letters = rng.permutation(list(text))
    return "".join(letters)


def menu(rng, text):
    """Lines of a menu, over and over."""
    line = " | ".join(rng.permutation(["Home", "Login", "Terms", "Contact", "Next"]))
    return "\n".join([line] * (1 + len(text) // len(line)))


KINDS = (shuffled, garbled, menu)


def texts(documents, noise=0.0, seed=0):
    """Clean texts, a share of which is replaced by noise of each kind in turn."""
    rng = np.random.default_rng(seed)
    made = [clean(rng) for _ in range(documents)]
    noisy = np.random.default_rng(seed + 1)
    for place in range(round(noise * documents)):
        kind = KINDS[place % len(KINDS)]
        i = (place * documents) // round(noise * documents)
        made[i] = kind(noisy, made[i])
    return made
