"""BM25 equals its formula and finds Japanese words."""

import math

import numpy as np

from mangalab.evaluation import lexical

DOCUMENTS = ["a cat and a dog", "the quiet cat", "robots at war"]


def test_bm25_is_the_formula():
    found = lexical.bm25(["cat", "quiet cat", "nothing"], DOCUMENTS)
    assert found.shape == (3, 3)
    length = np.mean([5, 3, 3])
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    norm = 1.2 * (1 - 0.75 + 0.75 * 5 / length)
    assert math.isclose(found[0, 0], idf * 2.2 / (1 + norm))
    assert found[1].argmax() == 1 and not found[2].any() and found[0, 2] == 0


def test_case_accents_and_japanese_script():
    assert lexical.words("Pokémon, 吸血鬼 LOVE!") == ["pokemon", "吸血", "血鬼", "love"]
    assert lexical.bm25(["吸血鬼"], ["吸血鬼 romance", "cats"])[0].argmax() == 0
