"""Benchmarks: each that measures quality runs on a tiny model and small data, and its tables show what it says."""

import argparse
import importlib
import json
import re

import pytest
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

from benchmarks.results.record import ROOT
from benchmarks.results.registry import BENCHMARKS

WORDS = re.findall(r"[A-Za-z]{3,}", (ROOT / "examples/data/python-faq/programming.rst.txt").read_text(encoding="utf-8"))
DOCUMENTS, LENGTH = 24, 40
PROPERTIES = ("words", "depth", "clauses", "rarity")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with every set that the benchmarks name, each of the same texts, whose first words ask for them."""
    folder = tmp_path_factory.mktemp("data")
    texts = {f"d{i}": " ".join(WORDS[LENGTH * i : LENGTH * (i + 1)]) for i in range(DOCUMENTS)}
    for name in ("python-faq", "cranfield", "xquad-de", "xquad-en", "scifact", "adi"):
        place = folder / "ir" / name
        place.mkdir(parents=True)
        rows = [{"_id": id_, "title": "", "text": text} for id_, text in texts.items()]
        (place / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rows = [{"_id": f"q{id_}", "text": " ".join(text.split()[:6])} for id_, text in texts.items()]
        (place / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines = ["query-id\tcorpus-id\tscore", *(f"q{id_}\t{id_}\t1" for id_ in texts)]
        (place / "qrels.tsv").write_text("\n".join(lines) + "\n")
    (folder / "sts").mkdir()
    parts = [text.split() for text in texts.values()]
    pairs = [f"{i % 6}\t{' '.join(part[:8])}\t{' '.join(part[3 - i % 6 :][:8])}" for i, part in enumerate(parts)]
    for name in ("STSB-dev", "STS12", "SICKR-trial", "STSB-test-de"):
        (folder / "sts" / f"{name}.tsv").write_text("\n".join(["score\tsentence1\tsentence2", *pairs]) + "\n")
    values = [float(len(part)) + i % 7 for i, part in enumerate(parts)]
    properties = {name: dict.fromkeys(PROPERTIES, values) for name in ("STSB-dev", "STS12", "SICKR-trial")}
    (folder / "properties.json").write_text(json.dumps(properties))
    (folder / "rerank").mkdir()
    asked = [{"query": f"{text[:20]}?", "positive": [text], "negative": ["Granite is hard."]} for text in texts.values()]
    (folder / "rerank" / "trecqa-dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked[:3]))
    return folder


@pytest.fixture(scope="module")
def deep_folder(tmp_path_factory, tiny_folder):
    """A tiny random model with as many blocks as the embedded one."""
    folder = tmp_path_factory.mktemp("deep")
    AutoTokenizer.from_pretrained(tiny_folder("llama")).save_pretrained(folder)
    config = AutoConfig.from_pretrained(tiny_folder("llama"))
    config.num_hidden_layers = 30
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


RUNS = {
    "quality": [
        "--sets",
        "python-faq",
        "cranfield",
        "xquad-de",
        "scifact",
        "--queries",
        "3",
        "--rerank",
        "retrieval-balanced",
    ],
    "similarity": ["--sets", "STSB-dev"],
    "ablation-sts": ["--sets", "STS12", "--items", "18"],
    "ablation-retrieval": ["--sets", "adi", "--items", "6"],
    "maps": ["--sets", "adi"],
    "exits": ["--sets", "adi", "cranfield"],
    "prepending": ["--sets", "adi"],
    "scopes": ["--items", "18", "--prompts", "prompteol"],
    "complexity": ["--items", "18"],
    "languages": ["--items", "18"],
    "masks": ["--items", "18", "--folders", "adi"],
    "attention": ["--items", "6", "--scope", "1..2"],
    "reranking": ["--queries", "3", "--depths", "20", "--weights", "0.5", "1.0"],
    "kinds": ["--sets", "adi"],
    "relevance": ["--sets", "adi", "cranfield", "--queries", "6", "--recipes", "retrieval-fast"],
}


FAST = ("quality", "similarity", "maps")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in RUNS])
@pytest.mark.filterwarnings("ignore")
def test_a_benchmark_measures_and_its_tables_show_it(name, data, deep_folder):
    benchmark = BENCHMARKS[name]
    module = importlib.import_module(f"benchmarks.{benchmark.module}")
    parser = argparse.ArgumentParser()
    module.add_options(parser)
    options = parser.parse_args([*benchmark.arguments, *RUNS[name]])
    vars(options).update(data=data, model=str(deep_folder), device="cpu", dtype="float32")
    figures = json.loads(json.dumps(module.measure(options)))
    tables = importlib.import_module(f"benchmarks.tables.{benchmark.module}").TABLES
    for table in tables.values():
        text = table(figures)
        widths = [line.count("|") for line in text.split("\n") if line.startswith("|")]
        assert len(widths) > 2
        assert re.search(r"\d", text)
        for part in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
            assert len({line.count("|") for line in part.strip().split("\n")}) == 1
