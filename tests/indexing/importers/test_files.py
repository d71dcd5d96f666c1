"""An index that follows files: what is embedded, what is kept, and what is deleted, with an embedder that counts."""

import itertools
import os
import sys

import pytest

from tests.toy import SampledEmbedder, StretchEmbedder, ToyEmbedder
from tp_retrieval import Document, Index, InputError
from tp_retrieval.indexing.importers.files import index_files, refit_if_grown
from tp_retrieval.types import PrecomputedVectors


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("# One\n\nFirst words.\n\n# Two\n\nSecond words.\n")
    (folder / "b.txt").write_text("Third words.")
    return folder


@pytest.fixture
def embedder():
    return ToyEmbedder()


@pytest.fixture
def index(tmp_path, embedder):
    with Index.create(tmp_path / "index", embedder) as index:
        yield index


def update(index, paths, tokens=16, **options):
    """Update an index, and return the files that stayed, chunks that were embedded, removed, and moved."""
    changes = index_files(index, paths, chunk_tokens=tokens, **options)
    return changes.unchanged_files, changes.added, changes.removed, changes.moved


def texts(index):
    return sorted(document.text for document in index)


def test_only_changed_files_are_embedded_again(index, embedder, folder):
    assert update(index, [folder]) == (0, 3, 0, 0)
    assert texts(index) == ["# One\n\nFirst words.", "# Two\n\nSecond words.", "Third words."]
    assert update(index, [folder]) == (2, 0, 0, 0)
    (folder / "a.md").write_text("# One\n\nOther words.\n")
    embedder.embedded.clear()
    assert update(index, [folder]) == (1, 1, 1, 0)
    assert embedder.embedded == ["# One\n\nOther words."]
    assert texts(index) == ["# One\n\nOther words.", "Third words."]
    assert update(index, [folder], tokens=2)[0] == 0


def test_a_missing_file_is_removed_only_below_a_folder_that_was_read(index, folder, tmp_path):
    (tmp_path / "alone.txt").write_text("Alone.")
    update(index, [folder, tmp_path / "alone.txt"])
    (folder / "b.txt").unlink()
    assert update(index, [folder / "a.md"]) == (1, 0, 0, 0)
    assert "Third words." in texts(index)
    assert update(index, [folder]) == (1, 0, 1, 0)
    assert texts(index) == ["# One\n\nFirst words.", "# Two\n\nSecond words.", "Alone."]


def test_an_id_of_another_file_is_refused_before_anything_changes(index, folder):
    (folder / "c.jsonl").write_text('{"id": "x", "text": "mine"}\n')
    update(index, [folder])
    (folder / "b.txt").unlink()
    (folder / "d.jsonl").write_text('{"id": "new", "text": "new"}\n{"id": "x", "text": "yours"}\n')
    with pytest.raises(InputError, match=r"d\.jsonl: the id 'x' is taken by .*c\.jsonl"):
        update(index, [folder])
    assert texts(index) == ["# One\n\nFirst words.", "# Two\n\nSecond words.", "Third words.", "mine"]


def test_documents_of_no_file_stay(index, folder):
    index.add(["from elsewhere"])
    update(index, [folder])
    (folder / "a.md").unlink()
    update(index, [folder])
    assert texts(index) == ["Third words.", "from elsewhere"]


def test_an_interrupted_update_embeds_the_rest(index, embedder, folder, monkeypatch):
    monkeypatch.setattr("tp_retrieval.indexing.importers.files._BATCH", 1)
    original = Index.add

    def interrupted(self, documents, **options):
        if documents[0].text.startswith("# Two"):
            raise KeyboardInterrupt
        return original(self, documents, **options)

    monkeypatch.setattr(Index, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        update(index, [folder])
    assert texts(index) == ["# One\n\nFirst words."]
    monkeypatch.setattr(Index, "add", original)
    assert update(index, [folder]) == (0, 2, 0, 0)
    assert embedder.embedded == ["# One\n\nFirst words.", "# Two\n\nSecond words.", "Third words."]


def places(index):
    return {document.id: document.text.split("\n")[0] for document in index}


def test_a_folder_that_was_moved_is_not_embedded_again(index, embedder, folder, tmp_path):
    update(index, [folder])
    before = places(index)
    assert before == {"a.md#0": "# One", "a.md#1": "# Two", "b.txt#0": "Third words."}
    assert index.file_settings().root == str(folder)
    embedder.embedded.clear()
    moved = tmp_path / "elsewhere" / "texts"
    moved.parent.mkdir()
    folder.rename(moved)
    assert update(index, [moved]) == (2, 0, 0, 0)
    assert (places(index), index.file_settings().root, embedder.embedded) == (before, str(moved), [])
    (moved / "b.txt").unlink()
    moved.rename(folder)
    assert update(index, [folder / "a.md"]) == (1, 0, 0, 0)
    assert update(index, [folder]) == (1, 0, 1, 0)


def test_another_folder_takes_nothing_from_the_first_even_where_that_is_gone(index, folder, tmp_path):
    update(index, [folder])
    other = tmp_path / "other"
    other.mkdir()
    (other / "c.txt").write_text("Fourth words.")
    assert update(index, [other]) == (0, 1, 0, 0)
    assert "../other/c.txt#0" in places(index)
    (folder / "a.md").unlink()
    (folder / "b.txt").unlink()
    folder.rmdir()
    (other / "d.txt").write_text("Fifth words.")
    assert update(index, [other]) == (1, 1, 0, 0)
    assert [*places(index).values()] == ["# One", "# Two", "Third words.", "Fourth words.", "Fifth words."]


def test_texts_that_only_changed_their_place_are_not_embedded_again(index, embedder, folder):
    update(index, [folder])
    vectors = dict(zip(["One", "Two"], next(index.batches())[1], strict=False))
    embedder.embedded.clear()
    (folder / "a.md").rename(folder / "renamed.md")
    assert update(index, [folder]) == (1, 0, 0, 2)
    assert places(index) == {"renamed.md#0": "# One", "renamed.md#1": "# Two", "b.txt#0": "Third words."}
    (folder / "renamed.md").write_text("# Zero\n\nBefore.\n\n# Two\n\nSecond words.\n\n# One\n\nFirst words.\n")
    assert update(index, [folder]) == (1, 1, 0, 2)
    assert embedder.embedded == ["# Zero\n\nBefore."]
    assert places(index) == {
        "renamed.md#0": "# Zero",
        "renamed.md#1": "# Two",
        "renamed.md#2": "# One",
        "b.txt#0": "Third words.",
    }
    (one,) = index.get(["renamed.md#2"])
    assert (one.metadata["headings"], one.metadata["line"]) == (["One"], 9)
    after = {d.text[2:5]: v for d, v in zip(*next(index.batches()), strict=True)}
    assert all((after[name] == vectors[name]).all() for name in vectors)
    assert index.verify().problems == ()


def test_chunks_that_change_their_ids_with_each_other_are_kept(index, embedder, folder, monkeypatch):
    monkeypatch.setattr("tp_retrieval.indexing.importers.files._MOVED", 1)
    update(index, [folder])
    embedder.embedded.clear()
    first, second = (folder / "a.md").read_text(), (folder / "b.txt").read_text()
    (folder / "b.txt").unlink()
    (folder / "a.md").write_text(second)
    (folder / "b.md").write_text(first)
    changed = update(index, [folder])
    assert places(index) == {"a.md#0": "Third words.", "b.md#0": "# One", "b.md#1": "# Two"}
    assert changed[1] <= 1  # of those that stand in each other's place
    assert index.verify().problems == ()


def test_an_index_with_absolute_ids_is_carried_over(index, embedder, folder, tmp_path):
    """As version 0.1.0 made them, here for a folder that lies where it was, and one that was moved since."""
    old = tmp_path / "gone" / "docs"
    update(index, [folder])
    for place in (folder, old):
        for document in list(index):
            path = str(place / document.metadata["path"].rpartition("/")[2])
            metadata = {**document.metadata, "path": path, "digest": "of version 0.1.0"}
            index.update({document.id: Document(document.text, metadata, f"{path}#{document.metadata['chunk']}")})
        with index._store.transaction():
            index._store.meta.remove("files")
        embedder.embedded.clear()
        assert update(index, [folder]) == (0, 0, 0, 3)
        assert (embedder.embedded, places(index)) == (
            [],
            {"a.md#0": "# One", "a.md#1": "# Two", "b.txt#0": "Third words."},
        )


def test_settings_are_kept_and_changed_by_name(index, folder):
    (folder / "drafts").mkdir()
    (folder / "drafts" / "x.md").write_text("A draft.")
    update(index, [folder], exclude=["drafts/"])
    assert index_files(index, [folder]).unchanged_files == 2
    assert index.file_settings().exclude == ("drafts/",)
    assert index.file_settings().chunk_tokens == 16
    assert index_files(index, [folder], exclude=[]).added == 1
    assert index_files(index, [folder], include=["*.txt"]).removed == 3
    with pytest.raises(InputError, match="chunk_token: unknown option; there are root"):
        index_files(index, [folder], chunk_token=3)
    with pytest.raises(InputError, match="chunk_tokens: 0 must be a positive whole number"):
        index_files(index, [folder], chunk_tokens=0)
    with pytest.raises(InputError, match=r"loaders: 'odt' must be a suffix"):
        index_files(index, [folder], loaders={"odt": "cat"})


def test_a_file_that_can_not_be_read_is_skipped_with_what_was_known_of_it(index, folder):
    update(index, [folder])
    (folder / "b.txt").write_bytes(b"\0binary")
    (folder / "c.mp4").write_bytes(b"film")
    (folder / "empty.md").write_text("\n")
    changes = index_files(index, [folder])
    assert (changes.unchanged_files, changes.removed, changes.empty_files, changes.files) == (1, 0, 1, 3)
    assert [(file.path.name, file.reason) for file in changes.skipped] == [
        ("c.mp4", "no reader for .mp4"),
        ("b.txt", "a binary file, not text (a NUL byte at 0)"),
    ]
    assert "Third words." in texts(index)
    for asked in ({"paths": [folder], "strict": True}, {"paths": [folder / "b.txt"]}):
        with pytest.raises(InputError, match=r"b\.txt: a binary file"):
            index_files(index, **asked)


def test_a_command_reads_other_formats_when_that_is_asked_for(index, folder, tmp_path):
    (folder / "c.shout").write_text("# loud\n\nwords")
    script = tmp_path / "upper.py"
    script.write_text("import sys, pathlib; print(pathlib.Path(sys.argv[1]).read_text().upper())")
    asked = {"loaders": {".shout": f"{sys.executable} {script}"}}
    assert update(index, [folder], **asked) == (0, 4, 0, 0)
    (loud,) = index.get(["c.shout#0"])
    assert (loud.text, loud.metadata["headings"]) == ("# LOUD\n\nWORDS", ["LOUD"])
    assert update(index, [folder]) == (2, 0, 0, 0)  # the index keeps no command, and the file's documents stay
    assert index.get(["c.shout#0"]) == [loud]
    (folder / "c.shout").write_text("# other")
    changes = index_files(index, [folder], loaders={".shout": f"{sys.executable} -c 'raise SystemExit(3)'"})
    assert [file.reason[-18:] for file in changes.skipped] == ["ended with 3 (silent)"[-18:]]


def test_files_need_an_embedder_that_counts_tokens(tmp_path, folder):
    with (
        Index.create(tmp_path / "given", PrecomputedVectors(3, "x")) as index,
        pytest.raises(InputError, match="counts no tokens"),
    ):
        index_files(index, [folder])


def test_progress_is_told_after_every_batch(index, tmp_path, monkeypatch):
    (tmp_path / "long.txt").write_text("\n\n".join(f"Paragraph {i} has just six words." for i in range(400)))
    clock = itertools.count(100.0, 2.0)
    monkeypatch.setattr("tp_retrieval.indexing.importers.files.time.perf_counter", lambda: next(clock))
    steps = []
    changes = index_files(index, [tmp_path / "long.txt"], chunk_tokens=16, on_progress=lambda *step: steps.append(step))
    assert changes.added > 128
    assert steps == [(min(64 * i, changes.added), changes.added, 2.0 / 64) for i in range(1, len(steps) + 1)]
    assert steps[-1][0] == changes.added


def test_stretches_that_are_missing_are_read_when_maps_are_fitted_anew(tmp_path):
    embedder = StretchEmbedder()
    added = [f"a text of several words {i} about {'cats' if i % 3 else 'dogs'}" for i in range(30)]
    with Index.create(tmp_path / "within", embedder) as index:
        index.add(added, vectors=embedder.embed_documents(added))
        assert index.info().unread == 30
        refit_if_grown(index)
        assert index.info().fitted == ("within:8", "within:4")
        embedder.embedded.clear()
        refit_if_grown(index)
        assert embedder.embedded == []


def test_an_update_in_batches_reads_no_more_than_one_add_and_keeps_the_order(tmp_path):
    (tmp_path / "long.txt").write_text("\n\n".join(f"Paragraph {i} has just six words." for i in range(400)))
    with Index.create(tmp_path / "index", SampledEmbedder()) as index:
        assert index_files(index, [tmp_path / "long.txt"], chunk_tokens=16).added > 128
        assert index._store.documents.count_wholly_read() == 24
        stored = [int(document.text.split()[1]) for document in index]
        assert stored == sorted(stored)


# -- what an attack found


def test_a_link_and_its_target_are_one_folder(index, embedder, folder, tmp_path, monkeypatch):
    (tmp_path / "linked").symlink_to(folder)
    update(index, [tmp_path / "linked"])
    assert places(index) == {"a.md#0": "# One", "a.md#1": "# Two", "b.txt#0": "Third words."}
    assert update(index, [folder]) == (2, 0, 0, 0)
    monkeypatch.chdir(tmp_path / "linked")
    assert update(index, ["."]) == (2, 0, 0, 0)
    (tmp_path / "other" / "inner").mkdir(parents=True)
    (tmp_path / "other" / "a.md").write_text("Elsewhere.")
    (folder / "link").symlink_to(tmp_path / "other" / "inner")
    assert update(index, [folder / "link" / ".." / "a.md"]) == (0, 1, 0, 0)  # what the system calls so
    assert "Elsewhere." in texts(index)


def test_a_wider_or_narrower_root_gives_other_names_and_embeds_nothing(index, embedder, folder, tmp_path):
    update(index, [folder])
    embedder.embedded.clear()
    assert update(index, [folder], root=tmp_path) == (0, 0, 0, 3)
    assert [*places(index)] == ["docs/a.md#0", "docs/a.md#1", "docs/b.txt#0"]
    assert update(index, [folder]) == (2, 0, 0, 0)
    assert update(index, [folder], root=folder) == (0, 0, 0, 3)
    assert [*places(index)] == ["a.md#0", "a.md#1", "b.txt#0"]
    assert embedder.embedded == []


def test_one_name_in_common_makes_no_folder_the_one_that_was_moved(index, folder, tmp_path, caplog):
    (folder / "README.md").write_text("Read me.")
    update(index, [folder])
    folder.rename(tmp_path / "away")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").write_text("Another.")
    assert update(index, [tmp_path / "other"]) == (0, 1, 0, 0)
    assert {"# One", "# Two", "Third words.", "Read me.", "Another."} == {*places(index).values()}
    assert f"{folder}, where the files of this index were, is gone" in caplog.text
    assert update(index, [tmp_path / "away"], root=tmp_path / "away") == (3, 0, 0, 0)


def test_a_part_of_a_folder_that_was_moved_is_known_by_the_whole(index, embedder, folder, tmp_path):
    (folder / "README.md").write_text("Read me.")
    (folder / "sub").mkdir()
    for name in ("README.md", "h.md"):
        (folder / "sub" / name).write_text(f"Sub {name}.")
    update(index, [folder])
    before = places(index)
    embedder.embedded.clear()
    folder.rename(tmp_path / "moved")
    assert update(index, [tmp_path / "moved" / "sub"]) == (2, 0, 0, 0)
    assert update(index, [tmp_path / "moved"]) == (5, 0, 0, 0)
    assert (places(index), embedder.embedded) == (before, [])


def test_a_document_of_no_file_is_neither_replaced_nor_in_the_way(index, folder):
    index.add([Document("mine", {}, "c.md#0")])
    update(index, [folder])
    (folder / "a.md").rename(folder / "c.md")
    before = places(index)
    with pytest.raises(InputError, match=r"c\.md: the id 'c\.md#0' is taken by a document of no file"):
        update(index, [folder])
    assert places(index) == before


@pytest.mark.parametrize(
    "value",
    ["!!bool foo", "!!timestamp foo", '!!int ""', ".inf", ".nan", "0x" + "F" * 5000, '"\\ud800"', "[" * 200 + "]" * 200],
)
def test_front_matter_that_json_can_not_hold_stays_text(index, folder, value):
    (folder / "a.md").write_text(f"---\nx: {value}\n---\n\nBody.\n")
    changes = index_files(index, [folder])
    assert (changes.files, changes.added + len(changes.skipped)) == (2, 2)
    assert "Third words." in texts(index)
    assert index.verify().problems == ()


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "a", "n": 1e999}',
        '{"text": "a", "n": "\\ud800"}',
        '{"text": "a", "n": ' + "[" * 900 + "]" * 900 + "}",
        '{"id": "x", "text": "a"}\n{"id": "x", "text": "b"}',
        '{"text": "a", "n": {"$date": "2024-05-01"}}',
    ],
)
def test_records_that_an_index_refuses_skip_their_file_alone(index, folder, line):
    (folder / "c.jsonl").write_text(line)
    changes = index_files(index, [folder])
    assert [file.path.name for file in changes.skipped] == ["c.jsonl"]
    assert changes.added == 3
    with pytest.raises(InputError, match=r"c\.jsonl"):
        index_files(index, [folder / "c.jsonl"])


def test_a_name_that_is_not_utf8_is_skipped_or_refused(index, folder):
    for name in (b"caf\xe9.md", b"caf\xe9.png"):
        with open(os.fsencode(folder) + b"/" + name, "w") as file:
            file.write("coffee")
    changes = index_files(index, [folder])
    assert [(file.path.name, file.reason) for file in changes.skipped] == [
        ("caf\ufffd.md", "its name is not UTF-8"),
        ("caf\ufffd.png", "its name is not UTF-8"),
    ]
    odd = os.fsdecode(os.fsencode(folder) + b"/r\xe9")
    os.mkdir(odd)
    with pytest.raises(InputError, match="its name is not UTF-8; rename it"):
        index_files(index, [odd])
    assert len(index) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chunk_tokens": 1.5}, "chunk_tokens: 1.5 must be"),
        ({"chunk_tokens": True}, "chunk_tokens: True must be"),
        ({"chunk_tokens": None}, "chunk_tokens: None must be"),
        ({"include": "*.md"}, r"include: '\*.md' must be a list"),
        ({"exclude": [1]}, r"exclude: \[1\] must be a list"),
        ({"exclude": ["!"]}, "'!' is no pattern of .gitignore"),
        ({"exclude": ["\udce9"]}, "exclude: character 0 is the lone surrogate"),
        ({"encoding": "base64"}, "encoding: no such encoding 'base64'"),
        ({"encoding": "undefined"}, "encoding: no such encoding"),
        ({"encoding": "utf-8\0"}, "encoding: no such encoding"),
        ({"encoding": 5}, "encoding: expected str"),
        ({"json_text": 5}, "json_text: expected str"),
        ({"root": "/nonexistent"}, "root: /nonexistent is no folder"),
        ({"loaders": {".tar.gz": "cat"}}, "loaders: '.tar.gz' must be a suffix"),
    ],
)
def test_options_of_another_type_are_refused_before_anything_is_kept(index, folder, options, words):
    with pytest.raises(InputError, match=words):
        index_files(index, [folder], **options)
    assert (len(index), index.file_settings()) == (0, None)


@pytest.mark.parametrize("paths", [[], "docs", None])
def test_paths_are_a_list(index, paths):
    with pytest.raises(InputError, match="must be a list of files and folders"):
        index_files(index, paths)
