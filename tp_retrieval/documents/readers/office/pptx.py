"""Presentations: a section a slide, under its title, with tables and notes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

from tp_retrieval.documents.formats import SourceFile
from tp_retrieval.documents.readers.office.archive import opened
from tp_retrieval.documents.section import Section
from tp_retrieval.errors import OptionalDependencyError


def sections(file: SourceFile) -> Iterator[Section]:
    """Yield the slides with their number from 1, as `page`."""
    try:
        from pptx import Presentation
        from pptx.exc import PythonPptxError
    except ImportError as error:
        raise OptionalDependencyError("python-pptx", "files") from error
    with opened(file, PythonPptxError):
        slides = [_slide(slide) for slide in Presentation(io.BytesIO(file.data)).slides]
    for number, (title, text) in enumerate(slides, 1):
        if text.strip():
            yield Section(text, (title,) if title else (), metadata={"page": number})


def _slide(slide: Any) -> tuple[str, str]:
    shape = slide.shapes.title
    title = "" if shape is None else " ".join(shape.text_frame.text.split())
    texts = [*_texts(slide.shapes)]
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        texts.append(slide.notes_slide.notes_text_frame.text)
    return title, "\n\n".join(text.replace("\v", "\n") for text in texts if text.strip())


def _texts(shapes: Iterable[Any]) -> Iterator[str]:
    for shape in shapes:
        if hasattr(shape, "shapes"):  # a group
            yield from _texts(shape.shapes)
        elif shape.has_text_frame:
            yield shape.text_frame.text
        elif getattr(shape, "has_table", False):
            yield "\n".join(" | ".join(cell.text for cell in row.cells) for row in shape.table.rows)
