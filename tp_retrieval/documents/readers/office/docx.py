"""Word documents: sections under their headings, by way of HTML and Markdown."""

from __future__ import annotations

import io
from collections.abc import Iterator

from tp_retrieval.documents.formats import SourceFile
from tp_retrieval.documents.readers.html import as_markdown, of_markdown
from tp_retrieval.documents.readers.office.archive import opened
from tp_retrieval.documents.section import Section
from tp_retrieval.errors import OptionalDependencyError


def sections(file: SourceFile) -> Iterator[Section]:
    """Yield the sections of a document; pictures are left out."""
    try:
        import mammoth
    except ImportError as error:
        raise OptionalDependencyError("mammoth", "files") from error
    with opened(file):
        no_picture = mammoth.images.img_element(lambda image: {"src": ""})
        html = mammoth.convert_to_html(io.BytesIO(file.data), convert_image=no_picture).value
    return of_markdown(as_markdown(html.replace('<img src="" />', "")))
