"""Readers of files that are ZIP archives of XML: Office and EPUB."""

from tp_retrieval.documents.readers.office import docx, epub, pptx, xlsx

__all__ = ["docx", "epub", "pptx", "xlsx"]
