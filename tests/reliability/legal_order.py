"""Look for an order of calls, each at one moment between its invocation and its return, that explains every result.

The search is that of Wing and Gong (1993) with the memory of Lowe (2017): each process calls one after another, so how far
each has come and what the documents are then is all that a search has to remember.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """One call of a process: when it was invoked and returned, what it was given, and what came back."""

    process: int
    invoked: int
    returned: int | None
    """None if the process was killed meanwhile: then the call may have had its effect or not."""
    what: str
    """add, delete, get, search or len"""
    given: tuple = ()
    """add: pairs (id, version); delete and get: ids"""
    result: object = None
    """delete and len: a count; get and search: the pairs that were there"""


def after(documents, call):
    """Return what a call must return, and the documents after it; documents are a sorted tuple of pairs (id, version)."""
    there = dict(documents)
    if call.what == "add":
        return None, tuple(sorted((there | dict(call.given)).items()))
    if call.what == "delete":
        gone = {id_ for id_ in call.given if id_ in there}
        return len(gone), tuple(pair for pair in documents if pair[0] not in gone)
    if call.what == "len":
        return len(there), documents
    wanted = there if call.what == "search" else call.given
    return tuple(sorted((id_, there[id_]) for id_ in wanted if id_ in there)), documents


def explained(calls):
    """Return whether there is a legal order of calls on an index that was empty."""
    by_process = {}
    for call in sorted(calls, key=lambda call: call.invoked):
        by_process.setdefault(call.process, []).append(call)
    queues = list(by_process.values())
    start = ((0,) * len(queues), ())
    seen, left = {start}, [start]
    while left:
        reached, documents = left.pop()
        if all(at == len(queue) or queue[at].returned is None for queue, at in zip(queues, reached, strict=True)):
            return True
        for state in _next(queues, reached, documents):
            if state not in seen:
                seen.add(state)
                left.append(state)
    return False


def _next(queues, reached, documents):
    """Yield what may come next: a call that was invoked before any other call that is left returned."""
    first = [queue[at] for queue, at in zip(queues, reached, strict=True) if at < len(queue)]
    end = min((call.returned for call in first if call.returned is not None), default=float("inf"))
    for process, (queue, at) in enumerate(zip(queues, reached, strict=True)):
        if at == len(queue) or queue[at].invoked > end:
            continue
        result, changed = after(documents, queue[at])
        if queue[at].returned is None or result == queue[at].result:
            yield (*reached[:process], at + 1, *reached[process + 1 :]), changed
