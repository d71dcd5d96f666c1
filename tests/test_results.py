"""Results: every table of figures is what its JSON gives, and no JSON is older than the code that it names."""

import json
import shutil

import pytest

from benchmarks.results.pages import HISTORICAL, code_of, fill, problems
from benchmarks.results.record import ROOT, digest, record, write
from benchmarks.results.registry import BENCHMARKS

FIGURES = {
    "model": "tiny",
    "sets": {
        "STS12": {
            "pairs": 3108,
            "prompteol": {"value": 59.75, "low": 57.31, "high": 62.05},
            "recipe": {"value": 67.46, "low": 65.32, "high": 69.4},
            "without maps": {"value": 61.0, "low": 60.0, "high": 62.0},
            "gain": {"value": -7.71, "low": -9.0, "high": 6.44},
        }
    },
}


def test_every_table_has_a_source_and_every_result_is_of_this_code():
    assert list(problems()) == []


def test_the_list_of_benchmarks_has_every_one():
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert [name for name in BENCHMARKS if f"`{name}`" not in page] == []


@pytest.fixture
def copy(tmp_path):
    """A copy of the pages and the code with one result more, filled in."""
    for name in ("docs", "benchmarks", "integrations", "tp_retrieval"):
        ignored = shutil.ignore_patterns("__pycache__", *(["integrations"] if name == "tp_retrieval" else []), "*.png")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "README.md", tmp_path)
    command = ["python", "-m", "benchmarks.results", "run", "similarity", "--data", "DATA"]
    result = record(FIGURES, command, code_of("similarity"), 1.5) | {"date": "2026-02-03"}
    result["machine"] = {"processor": "some processor", "cores": 2, "memory": 8, "accelerator": "some card"}
    result["versions"] = {"torch": "2.0", "transformers": "5.0", "faiss": None, "numpy": "2.0"}
    write(tmp_path / "benchmarks/results/similarity.json", result)
    page = tmp_path / "docs/results.md"
    if "results: similarity sets" not in page.read_text():
        page.write_text(page.read_text() + "\n<!-- results: similarity sets -->\n<!-- /results -->\n")
    fill(tmp_path)
    return tmp_path


def test_a_table_says_when_where_and_how_it_was_measured(copy):
    _, _, block = (copy / "docs/results.md").read_text().partition("<!-- results: similarity sets -->\n")
    assert block.partition("<!-- /results -->")[0] == (
        "\n| set | pairs | PromptEOL, last exit | this recipe without its maps | this recipe | gain |\n"
        "|---|---|---|---|---|---|\n"
        "| STS12 (had no say) | 3,108 | 59.8 [57.3, 62.0] | 61.0 [60.0, 62.0] | **67.5** [65.3, 69.4] "
        "| −7.7 [−9.0, +6.4] |\n"
        "\n"
        "*3 February 2026; some card, 2 cores of some processor; torch 2.0, transformers 5.0; 1.5 minutes: "
        "`python -m benchmarks.results run similarity --data DATA`*\n\n"
    )


def test_what_was_filled_has_no_problem_and_is_not_filled_again(copy):
    assert list(problems(copy)) == []
    assert fill(copy) == []


def changed(path, old, new):
    """Return a function that replaces a text once in a file of a folder."""

    def change(root):
        text = (root / path).read_text(encoding="utf-8")
        assert old in text, path
        (root / path).write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def without_markers(root):
    page = root / "docs/results.md"
    before, _, after = page.read_text(encoding="utf-8").partition("<!-- results: similarity sets -->\n")
    page.write_text(before + after.replace("<!-- /results -->\n", "", 1), encoding="utf-8")


def without_the_result(root):
    (root / "benchmarks/results/similarity.json").unlink()


def without_measured_code(root):
    (root / "tp_retrieval/embedding/maps/within.py").unlink()


def with_an_unknown_result(root):
    shutil.copy(root / "benchmarks/results/similarity.json", root / "benchmarks/results/likeness.json")


PAGE, READOUT = "docs/results.md", "tp_retrieval/embedding/forward/readout.py"
STS = "tp_retrieval/embedding/recipes/SmolLM2-135M-Instruct/sts.json"
DAMAGES = {
    "a digit": (changed(PAGE, "| STS12 (had no say) | 3,108", "| STS12 (had no say) | 3,109"), "not what"),
    "a date": (changed(PAGE, "*3 February 2026", "*4 February 2026"), "not what"),
    "a digit of a historical table": (changed(PAGE, "| 73.1, 73.9 [68.9, 78.8] |", "| 73.2, 73.9 |"), "without a source"),
    "a historical table lost": (changed(PAGE, "| 73.1, 73.9 [68.9, 78.8] |", "| x |"), "has no table"),
    "a table more": (changed(PAGE, "# Results\n", "# Results\n\n| a | b |\n|---|---|\n| c | 12.5 |\n"), "without a source"),
    "an opening marker": (changed(PAGE, "<!-- results: similarity sets -->\n", ""), "has no partner"),
    "a closing marker": (changed(PAGE, "<!-- /results -->\n", ""), "has no partner"),
    "both markers": (without_markers, "without a source"),
    "both markers, the result": (without_markers, "no table is rendered from it"),
    "a benchmark's name": (
        changed(PAGE, "results: similarity sets", "results: likeness sets"),
        "no benchmark of this name",
    ),
    "a file": (without_the_result, "there is no benchmarks/results/similarity.json"),
    "a result of no benchmark": (with_an_unknown_result, "likeness.json: no benchmark of this name"),
    "a figure": (changed("benchmarks/results/similarity.json", "59.75", "59.95"), "not what"),
    "a line of code": (changed(READOUT, "return", "pass\n    return"), f"measured before {READOUT} changed"),
    "a file of code": (without_measured_code, "measured before tp_retrieval/embedding/maps/within.py changed"),
    "a recipe": (changed(STS, '"exit": 28', '"exit": 27'), f"measured before {STS} changed"),
    "the benchmark": (
        changed("benchmarks/similarity.py", '"STS12"', '"STS13"'),
        "measured before benchmarks/similarity.py",
    ),
}


@pytest.mark.parametrize(("damage", "expected"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_noticed(copy, damage, expected):
    damage(copy)
    assert [problem for problem in problems(copy) if expected in problem]


def test_filling_mends_an_edited_table_and_forgets_what_it_replaced(copy):
    historical = json.loads((copy / HISTORICAL).read_text())
    DAMAGES["a digit"][0](copy)
    assert fill(copy) == [PAGE]
    (copy / HISTORICAL).write_text(json.dumps([*historical, {"page": PAGE, "digest": "gone"}]))
    assert fill(copy) == [HISTORICAL]
    assert json.loads((copy / HISTORICAL).read_text()) == historical
    assert list(problems(copy)) == []


CODE = 'def half(x: int) -> float:\n    """Return half."""\n    return x / 2\n'


@pytest.mark.parametrize(
    ("text", "alike"),
    [
        (CODE.replace("Return half.", "Halve it."), True),
        ("# a comment\n" + CODE, True),
        (CODE.replace("x / 2", "(x\n            /2)"), True),
        (CODE.replace("2", "3"), False),
        (CODE.replace("half", "halved", 1), False),
        (CODE.replace(" / ", " // "), False),
        (CODE + "\n\nprint(half(2))\n", False),
    ],
)
def test_a_digest_is_of_what_code_means(tmp_path, text, alike):
    (tmp_path / "code.py").write_text(CODE)
    (tmp_path / "other.py").write_text(text)
    assert (digest(tmp_path / "code.py") == digest(tmp_path / "other.py")) is alike


def test_a_digest_of_json_is_of_its_values(tmp_path):
    texts = ['{"a": 1, "b": [2]}', '{"b":\n[2], "a": 1}', '{"a": 1, "b": [3]}']
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.json").write_text(text)
    first, same, other = (digest(tmp_path / f"{i}.json") for i in range(3))
    assert first == same != other


def test_every_benchmark_names_code_that_there_is():
    for name in BENCHMARKS:
        assert [path for path in code_of(name) if not (ROOT / path).exists()] == []


def test_historical_tables_say_when_they_were_measured():
    for table in json.loads((ROOT / HISTORICAL).read_text()):
        assert sorted(table) == ["commit", "digest", "page", "table", "under"]
        assert int(table["commit"], 16)
        assert f"{table['under']}\n" in (ROOT / table["page"]).read_text()
