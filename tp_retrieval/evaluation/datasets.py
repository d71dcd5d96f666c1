"""Labelled data: STS tables, folders in BEIR's layout, tables of label and text.

sts = read_sts("STSB-dev.tsv")          # columns subset, score, sentence1, sentence2
faq = read_retrieval("ir/python-faq")   # corpus.jsonl, queries.jsonl, qrels.tsv, each plain or .gz
train = read_labelled("TREC-train.tsv") # label<TAB>text
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tp_retrieval.documents.encodings import decoded_utf8
from tp_retrieval.documents.jsonl import read_objects
from tp_retrieval.errors import InputError
from tp_retrieval.types import check_text

_SENTENCE = re.compile(r"(.+?[.!?])\s+(\S.*)", re.DOTALL)
_WORDS = 3  # fewer make no query


@dataclass(frozen=True)
class StsPairs:
    """Pairs of sentences with their gold similarity; `subsets` names the origin of each pair."""

    name: str
    first: list[str]
    second: list[str]
    scores: list[float]
    subsets: list[str]


@dataclass(frozen=True)
class RetrievalSet:
    """Documents and queries by id, and the grade of each document that was judged for a query, 0 for irrelevant."""

    name: str
    documents: Mapping[str, str]
    queries: Mapping[str, str]
    grades: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class LabelledTexts:
    """Texts, each with its class."""

    name: str
    texts: list[str]
    labels: list[str]


def read_sts(file: str | Path) -> StsPairs:
    """Read a table with a header that names `score`, `sentence1` and `sentence2`, and maybe `subset`."""
    file = Path(file)
    rows = _table(file)
    header = next(rows, (1, []))[1]
    missing = [name for name in ("score", "sentence1", "sentence2") if name not in header]
    if missing:
        raise InputError(f"{file}: no column {missing[0]!r} among {header}; expected subset, score, sentence1, sentence2")
    column = {name: header.index(name) for name in header}
    first, second, scores, subsets = [], [], [], []
    for number, row in rows:
        if len(row) != len(header):
            raise InputError(f"{file}, line {number}: {len(row)} columns must be {len(header)}")
        scores.append(_number(row[column["score"]], f"{file}, line {number}: score"))
        first.append(row[column["sentence1"]])
        second.append(row[column["sentence2"]])
        subsets.append(row[column["subset"]] if "subset" in column else "all")
    if len(scores) < 2:
        raise InputError(f"{file}: {len(scores)} pairs; a correlation needs two")
    return StsPairs(file.stem, first, second, scores, subsets)


def read_retrieval(folder: str | Path) -> RetrievalSet:
    """Read a folder in BEIR's layout; queries without a relevant document are left out.

    Judgements are in `qrels.tsv` or `qrels/test.tsv`: a header, then query id, document id and a whole number.
    """
    folder = Path(folder)
    documents, texts = {}, {}
    for where, record in _identified(folder / "corpus.jsonl"):
        text = f"{record.get('title') or ''}\n{_field(record, 'text', where)}".strip()
        documents[record["_id"]] = text or "."
    for where, record in _identified(folder / "queries.jsonl"):
        texts[record["_id"]] = _field(record, "text", where)
    grades: dict[str, dict[str, int]] = {}
    file = folder / "qrels.tsv"
    file = file if _exists(file) else folder / "qrels" / "test.tsv"
    for i, (number, row) in enumerate(_table(file)):
        if len(row) != 3:
            raise InputError(f"{file}, line {number}: {len(row)} columns must be 3: query id, document id, grade")
        query, document, grade = row
        if i == 0:
            if query in texts and document in documents:
                raise InputError(f"{file}, line {number}: must be a header, such as query-id, corpus-id, score")
            continue
        if query not in texts or document not in documents:
            unknown = f"query {query!r}" if query not in texts else f"document {document!r}"
            raise InputError(f"{file}, line {number}: {unknown} is in no file of {folder}")
        value = _number(grade, f"{file}, line {number}: grade")
        if value != int(value):
            raise InputError(f"{file}, line {number}: grade must be a whole number, got {grade!r}")
        grades.setdefault(query, {})[document] = int(value)
    judged = {query: judgements for query, judgements in grades.items() if any(grade > 0 for grade in judgements.values())}
    if not judged:
        raise InputError(f"{folder}: no query has a relevant document")
    return RetrievalSet(folder.resolve().name, documents, {q: text for q, text in texts.items() if q in judged}, judged)


def read_unlabelled(folder: str | Path) -> RetrievalSet:
    """Read corpus.jsonl, and make queries of its titles and first sentences."""
    folder = Path(folder)
    rows = []
    for where, record in _identified(folder / "corpus.jsonl"):
        title = record.get("title")
        rows.append((record["_id"], title if isinstance(title, str) else "", _field(record, "text", where)))
    return self_supervised(folder.resolve().name, rows)


def self_supervised(name: str, rows: Iterable[tuple[str, str, str]]) -> RetrievalSet:
    """Make queries of ids, titles and texts: the title is a query for its text, else the first sentence for the rest.

    A query is removed from its document. A document too short for both has no query. Raises `InputError` without any query.
    """
    documents, queries, grades = {}, {}, {}
    for id_, title, whole in rows:
        query, text = title.strip(), whole.strip()
        rest = text
        if not query and (first := _SENTENCE.match(text)):
            query, rest = first[1].strip(), first[2].strip()
        if len(query.split()) >= _WORDS and len(rest.split()) >= 2 * _WORDS:
            queries[id_], documents[id_], grades[id_] = query, rest, {id_: 1}
        else:
            documents[id_] = text or "."
    if not queries:
        raise InputError(f"{name}: no document has a title, or a first sentence and a rest, to make questions of")
    return RetrievalSet(name, documents, queries, grades)


def read_labelled(file: str | Path) -> LabelledTexts:
    """Read a table of label and text without a header."""
    file = Path(file)
    texts, labels = [], []
    for number, row in _table(file):
        if len(row) != 2:
            raise InputError(f"{file}, line {number}: {len(row)} columns must be 2: label, text")
        labels.append(row[0])
        texts.append(row[1])
    if not texts:
        raise InputError(f"{file}: holds no texts")
    return LabelledTexts(file.stem, texts, labels)


def _exists(file: Path) -> bool:
    return file.exists() or file.with_name(f"{file.name}.gz").exists()


def _text(file: Path) -> str:
    packed = file.with_name(f"{file.name}.gz")
    try:
        data = gzip.decompress(packed.read_bytes()) if not file.exists() and packed.exists() else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: can't be read ({getattr(error, 'strerror', None) or error})") from error
    return decoded_utf8(data, file).replace("\r\n", "\n").replace("\r", "\n")


def _table(file: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(_text(file).split("\n"), 1):
        if line.strip():
            yield number, line.split("\t")


def _identified(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield each object's file and line, and the object; raise `InputError` if an `_id` repeats one before."""
    ids = set()
    for number, record in read_objects(_text(file), file, allow_nan=True):  # in fields that nothing reads
        where = f"{file}, line {number}"
        id_ = _field(record, "_id", where)
        if id_ in ids:
            raise InputError(f"{where}: the _id {id_!r} is given twice")
        ids.add(id_)
        yield where, record


def _field(record: Mapping[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise InputError(f"{where}: {name} must be a string, got {value!r}")
    check_text(value, f"{where}: {name}")
    return value


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{name} must be a number, got {text!r}")
    return value
