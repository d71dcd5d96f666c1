"""Citations: which sentence gets which number, whatever pieces the text comes in."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tp_retrieval.answering.citations import CitedSentence, CitedText, content_words

PASSAGES = [
    "Bread dough rises because yeast turns sugar into carbon dioxide.",
    "An octopus has three hearts and blue blood.",
    "鲸鱼是生活在海洋中的哺乳动物。",
]


def written(text, passages=PASSAGES, cuts=()):
    """Return what is shown of a text that comes in pieces, and the sentences."""
    cited, shown, begin = CitedText(passages), "", 0
    for cut in [*sorted(cuts), len(text)]:
        shown += cited.feed(text[begin:cut])
        begin = max(begin, cut)
    return shown + cited.finish(), cited.sentences


@pytest.mark.parametrize(
    ("text", "shown", "sources"),
    [
        ("Yeast turns sugar into carbon dioxide [1].", "Yeast turns sugar into carbon dioxide. [1]", [(1,)]),
        ("Yeast turns sugar into carbon dioxide. [1]", "Yeast turns sugar into carbon dioxide. [1]", [(1,)]),
        ("Yeast turns sugar into carbon dioxide.", "Yeast turns sugar into carbon dioxide. [1]", [(1,)]),
        ("Yeast turns sugar into carbon dioxide [2].", "Yeast turns sugar into carbon dioxide. [1]", [(1,)]),
        ("Yeast turns sugar into carbon dioxide [7].", "Yeast turns sugar into carbon dioxide. [1]", [(1,)]),
        ("The heart beats in [0, 1] seconds.", "The heart beats in [0, 1] seconds.", [()]),
        ("The heart was found in [2024].", "The heart was found in [2024].", [()]),
        ("sorted([3, 1, 2]) gives hearts.", "sorted([3, 1, 2]) gives hearts.", [()]),
        ("array[1] holds the hearts", "array[1] holds the hearts", [()]),
        ("The matrix [[1, 2], [3, 4]] beats.", "The matrix [[1, 2], [3, 4]] beats.", [()]),
        ("$x_{[1]}$ beats fast", "$x_{[1]}$ beats fast", [()]),
        ("See [1](http://example.org) there", "See [1](http://example.org) there", [()]),
        ("Code here:\n    x = a[1]\n    y = b [2]", "Code here:\n    x = a[1]\n    y = b [2]", [()]),
        ("[1] beats", " beats", [()]),
        ("Dough needs patience and warmth [1].", "Dough needs patience and warmth.", [()]),
        ("It has three hearts [2]. Its blood is blue[2]!", "It has three hearts. [2] Its blood is blue! [2]", [(2,), (2,)]),
        ("The value is 1.2 or 3.", "The value is 1.2 or 3.", [()]),
        ("鲸鱼是哺乳动物。", "鲸鱼是哺乳动物。 [3]", [(3,)]),
        ("Use `blood[1]` there.", "Use `blood[1]` there.", [()]),
        ("Take x[100] of them.", "Take x[100] of them.", [()]),
        ("An octopus has three hearts[2].", "An octopus has three hearts. [2]", [(2,)]),
        ("", "", []),
    ],
)
def test_a_number_stays_only_where_the_passage_has_the_words(text, shown, sources):
    got, sentences = written(text)
    assert got == shown
    assert [sentence.sources for sentence in sentences] == sources


def test_items_of_a_list_and_rows_of_a_table_have_their_own_numbers():
    text = "- yeast turns sugar [1]\n- three hearts, blue blood [2]\n2. octopus blood [2]\n| hearts | [2]\nend of it"
    shown, sentences = written(text)
    assert [sentence.sources for sentence in sentences[:3]] == [(1,), (2,), (2,)]
    assert shown.startswith("- yeast turns sugar [1]\n- three hearts, blue blood [2]\n2. octopus blood [2]\n| hearts |")


def test_code_is_one_sentence_and_lines_that_are_wrapped_are_no_ends():
    block = "```python\nhearts[1] = three\n\nblood = blue. octopus\n```"
    code = f"Copy the octopus:\n\n{block}\nAn octopus has\nthree hearts.\n\nDone"
    shown, sentences = written(code)
    assert block in shown
    assert sentences[-2] == CitedSentence("An octopus has\nthree hearts.", (2,))
    assert sentences[-1] == CitedSentence("Done", ())


@pytest.mark.parametrize("block", ["```python", "```python\nhearts = three", "```\nocto"])
def test_code_that_was_cut_off_gets_no_number(block):
    text = f"An octopus has three hearts:\n\n{block}"
    shown, sentences = written(text)
    assert shown.endswith(block)
    assert sentences[-1].sources == ()


@given(st.lists(st.integers(0, 120), max_size=12), st.sampled_from([1, 2, 3, 4]))
def test_pieces_make_no_difference(cuts, repeat):
    text = " ".join(
        ["Yeast turns sugar [1] into carbon dioxide [9].", "Blue blood, three hearts! [2, 1]\n\nNothing known."] * repeat
    )
    assert written(text, cuts=[min(cut, len(text)) for cut in cuts]) == written(text)


@given(st.text(alphabet=st.sampled_from("ab [](),.1239\n!`鲸é"), max_size=60))
def test_no_text_breaks_it_and_every_number_that_is_shown_exists(text):
    shown, sentences = written(text, [*PASSAGES, text])
    assert len(re.sub(r"\s*\[[\d\s,]*\]", "", shown)) <= len(text)
    assert {n for sentence in sentences for n in sentence.sources} <= {1, 2, 3, 4}
    for sentence in sentences:
        for number in sentence.sources:
            words = content_words(sentence.text)
            assert len(words & content_words([*PASSAGES, text][number - 1])) / len(words) >= 0.6


def test_a_sentence_that_comes_again_is_noticed():
    cited = CitedText(PASSAGES)
    cited.feed("An octopus has hearts. It is blue. ")
    assert not cited.repeats
    cited.feed("An octopus has hearts. And")
    assert cited.repeats
