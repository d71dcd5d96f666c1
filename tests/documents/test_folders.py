"""Which files below a folder are read: ignore rules, links, patterns; compared with Git's own answer."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tp_retrieval import InputError
from tp_retrieval.documents.folders import FolderRules, find

TREE = [
    "a.md",
    "b.log",
    "keep.log",
    ".hidden/x.md",
    ".env.txt",
    "build/out.txt",
    "src/build/out.txt",
    "src/app.py",
    "src/deep/notes.txt",
    "src/deep/secret.txt",
    "src/deep/other/secret.txt",
    "node_modules/lib/index.js",
    "docs/node_modules/readme.md",
    "docs/draft-1.md",
    "docs/final.md",
    "docs/ä ö.md",
]
IGNORE = {
    ".gitignore": "*.log\n!keep.log\n/build\nnode_modules/\n# comment\n\ndocs/draft-*.md\n",
    "src/.gitignore": "secret.txt\n!/deep/other/secret.txt\n",
}


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    for name in TREE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    for name, lines in IGNORE.items():
        (folder / name).write_text(lines)
    return folder


def names(folder, rules=None, root=None):
    return [file.relative_to(root or folder).as_posix() for file in find([folder], rules).files]


def test_ignore_files_mean_what_they_mean_to_git(tree):
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    listed = subprocess.run(
        ["git", "-c", "core.quotePath=off", "ls-files", "-co", "--exclude-standard"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    visible = {name for name in listed if not any(part.startswith(".") for part in Path(name).parts)}
    assert visible == {
        "a.md",
        "keep.log",
        "src/build/out.txt",
        "src/app.py",
        "src/deep/notes.txt",
        "src/deep/other/secret.txt",
        "docs/final.md",
        "docs/ä ö.md",
    }
    assert {*names(tree)} == visible
    assert {*names(tree / "docs", root=tree)} == {
        "docs/final.md",
        "docs/ä ö.md",
    }  # the repository's rules hold in a part of it


def test_without_a_repository_rules_above_the_folder_do_not_count(tree):
    assert "docs/draft-1.md" in names(tree / "docs", root=tree)
    assert "docs/draft-1.md" not in names(tree)


def test_a_file_of_the_name_ignore_counts_as_well(tree):
    (tree / ".ignore").write_text("docs/\n")
    assert not any(name.startswith("docs") for name in names(tree))


@pytest.mark.parametrize(
    ("rules", "want"),
    [
        ({"include": ("*.py",)}, ["src/app.py"]),
        ({"include": ("docs/*.md", "a.md")}, ["a.md", "docs/final.md", "docs/ä ö.md"]),
        (
            {"exclude": ("src/deep", "*.log")},
            ["a.md", "docs/final.md", "docs/ä ö.md", "src/app.py", "src/build/out.txt"],
        ),
        ({"include": ("src/",), "exclude": ("deep/",)}, ["src/app.py", "src/build/out.txt"]),
    ],
)
def test_patterns_choose(tree, rules, want):
    assert names(tree, FolderRules(**rules)) == want


def test_links_count_where_they_lie_and_never_twice(tree, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "far.md").write_text("far")
    os.symlink(outside, tree / "docs" / "linked")
    os.symlink(tree, tree / "docs" / "loop")
    os.symlink(tree / "a.md", tree / "0-first.md")
    os.symlink(outside / "far.md", tree / "zz.md")
    os.symlink(outside / "missing.md", tree / "dangling.md")
    listed = names(tree)
    assert "docs/linked/far.md" in listed or "zz.md" in listed
    assert len([name for name in listed if name in ("docs/linked/far.md", "zz.md")]) == 1
    assert not {"0-first.md", "dangling.md"} & {*listed}
    assert not any("loop" in name for name in listed)
    assert len({os.path.realpath(tree / name) for name in listed}) == len(listed)


def test_what_has_no_reader_is_named_and_a_file_without_a_suffix_is_text(tree):
    (tree / "film.MP4").write_bytes(b"x")
    (tree / "LICENSE").write_text("Terms")
    listing = find([tree])
    assert [(file.path.name, file.reason) for file in listing.skipped] == [("film.MP4", "no reader for .mp4")]
    assert tree / "LICENSE" in listing.files
    assert tree / "film.MP4" in find([tree], FolderRules(suffixes={".mp4"})).files


def test_a_file_that_is_named_counts_whatever_the_rules_say(tree):
    assert names(tree / "b.log", root=tree) == ["b.log"]
    (tree / "x.mp4").write_text("x")
    with pytest.raises(InputError, match=r"no reader for \.mp4 files; there are \.md"):
        find([tree / "x.mp4"])
    with pytest.raises(InputError, match="no such file or folder"):
        find([tree / "missing"])
    shutil.rmtree(tree / "docs")
    (tree / "docs").mkdir()
    with pytest.raises(InputError, match="docs: no file here ends in"):
        find([tree / "docs"])


def test_the_folders_of_indexes_are_left_out(tree):
    assert "src/deep/notes.txt" not in names(tree, FolderRules(without=(tree / "src" / "deep",)))


def test_a_linked_folder_hides_no_folder(tree):
    (tree / "a-link").symlink_to(tree / "src")
    (tree / "docs" / "link").symlink_to(Path("..") / "src")
    assert {"src/app.py", "src/deep/notes.txt"} <= {*names(tree)}
    assert not any("link" in name for name in names(tree))


def test_odd_entries_are_passed_over(tree):
    (tree / "self").symlink_to("self")
    (tree / "long").symlink_to("x" * 300)
    os.mkfifo(tree / "pipe.txt")
    assert "a.md" in names(tree)
    assert not {"self", "long", "pipe.txt"} & {*names(tree)}


@pytest.mark.parametrize("line", ["!", "\\", "/", "[z-a]"])
def test_a_line_that_is_no_pattern_is_passed_over(tree, line):
    (tree / ".gitignore").write_text(f"\ufeff*.log\n{line}\nsrc/\n", encoding="utf-8")
    listed = names(tree)
    assert "a.md" in listed
    assert not any(name.endswith(".log") or name.startswith("src") for name in listed)
