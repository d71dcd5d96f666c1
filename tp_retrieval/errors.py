"""Every error and warning this package raises on purpose.

    TPRetrievalError
    ├── InputError (ValueError)                a text, document, vector or argument that can't be used
    ├── RecipeError (ValueError)               a template or recipe that contradicts itself or the model
    ├── ModelNotFoundError (FileNotFoundError) no such model here, and no way to fetch it
    ├── UnsupportedModelError (TypeError)      a model whose blocks can't be rewired
    ├── OutOfMemoryError (MemoryError)         a model, or one single text, does not fit in memory
    ├── IndexNotFoundError (FileNotFoundError) nothing to open at that path
    ├── IndexExistsError (FileExistsError)     something is already at the path of a new index
    ├── IncompatibleIndexError (ValueError)    another model or recipe made this index
    ├── IndexLockedError (TimeoutError)        another process is writing and did not finish in time
    ├── IndexAccessError (OSError)             the index's place can't be read or written
    ├── CorruptIndexError (RuntimeError)       the index on disk is damaged
    ├── WorkerError (RuntimeError)             a process that embeds was killed
    ├── ServerError (RuntimeError)             a server refused a request, or could not be reached
    └── OptionalDependencyError (ImportError)  an extra of this package is not installed

TruncationWarning (UserWarning)            texts were cut to fit `max_tokens`
"""


class TPRetrievalError(Exception):
    """Base of every error of this package."""


class InputError(TPRetrievalError, ValueError):
    """A text, document, vector or argument can't be used; the message names it by position."""


class RecipeError(TPRetrievalError, ValueError):
    """A template or recipe contradicts itself or the model; the message names field and value."""


class ModelNotFoundError(TPRetrievalError, FileNotFoundError):
    """The model is not on this machine and can't be fetched; the message says what to install or download."""


class UnsupportedModelError(TPRetrievalError, TypeError):
    """The model is no decoder whose blocks can be rewired; the message says why."""


class OutOfMemoryError(TPRetrievalError, MemoryError):
    """A model, or one single text, does not fit in memory; the message says how large it is and what to do."""


class IndexNotFoundError(TPRetrievalError, FileNotFoundError):
    """There is no index at this path."""


class IndexExistsError(TPRetrievalError, FileExistsError):
    """A new index can't be made where something already is."""


class IncompatibleIndexError(TPRetrievalError, ValueError):
    """The index was made by another model or recipe; the message names what differs, stored and given."""


class IndexLockedError(TPRetrievalError, TimeoutError):
    """Another process holds the index's write lock."""


class IndexAccessError(TPRetrievalError, OSError):
    """The index's place can't be read or written (missing, read-only, full); what was there is untouched."""


class CorruptIndexError(TPRetrievalError, RuntimeError):
    """The index on disk is damaged; the message names file and record."""


class WorkerError(TPRetrievalError, RuntimeError):
    """A process that embeds was killed, by the machine for want of memory perhaps; nothing was returned."""


class ServerError(TPRetrievalError, RuntimeError):
    """A server refused a request, with `status`, or could not be reached, with None."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


class OptionalDependencyError(TPRetrievalError, ImportError):
    """A feature needs an extra of this package; the message is the pip line."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. Run: pip install 'tp-retrieval[{extra}]'")


class TruncationWarning(UserWarning):
    """Texts were longer than the recipe's `max_tokens` and lost their ends."""


__all__ = [
    "CorruptIndexError",
    "IncompatibleIndexError",
    "IndexAccessError",
    "IndexExistsError",
    "IndexLockedError",
    "IndexNotFoundError",
    "InputError",
    "ModelNotFoundError",
    "OptionalDependencyError",
    "OutOfMemoryError",
    "RecipeError",
    "ServerError",
    "TPRetrievalError",
    "TruncationWarning",
    "UnsupportedModelError",
    "WorkerError",
]
