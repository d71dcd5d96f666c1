import pytest

from tp_retrieval import RecipeError, Template
from tp_retrieval.embedding.template import clean


def test_a_template_with_a_slot_is_split_at_slot_and_text_with_spaces_as_written():
    template = Template('This sentence : <PST> "{text}" means in one word:"')
    assert (template.head, template.before, template.after) == ("This sentence : ", ' "', '" means in one word:"')
    assert template.has_slot


def test_a_template_without_a_slot_has_no_head():
    template = Template('passage {0} {x}: "{text}"')
    assert (template.head, template.before, template.after) == ("", 'passage {0} {x}: "', '"')
    assert not template.has_slot


@pytest.mark.parametrize(
    "source",
    ["no text", "{text} {text}", "<PST> <PST> {text}", "{text} <PST>", "{ text }", "", None, 7, b"{text}"],
)
def test_a_bad_template_is_refused_with_its_value(source):
    with pytest.raises(RecipeError) as error:
        Template(source)
    assert repr(source) in str(error.value)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("a dog", "a dog."),
        ("a dog.", "a dog."),
        ("a dog?", "a dog."),
        ("a dog!", "a dog!."),
        ('the "dog"', "the 'dog'"),
        ('is it a "dog?"', "is it a 'dog?'"),
        ("dog'", "dog'"),
        ("dog ", "dog ."),
        ("??", "?."),
        ("?", "."),
        ("", ""),
    ],
)
def test_cleaning_is_the_authors(text, want):
    assert clean(text) == want
