"""LlamaIndex's metadata filters as `where` conditions."""

from __future__ import annotations

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

_PLAIN = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.TEXT_MATCH: "$match",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "$imatch",
}
_EMPTY: tuple[object, ...] = (None, "", [])
_ALWAYS: dict[str, object] = {"": {"$nin": []}}
_NEVER: dict[str, object] = {"": {"$in": []}}


def where_of(filters: MetadataFilters | None) -> dict[str, object] | None:
    """Return the filters as a `where` dict, None if they keep everything; they mean what LlamaIndex's own store means.

    A missing or null value fits "!=" and "nin" only; "contains", "any" and "all" search in lists and strings.
    """
    if filters is None or not filters.filters:
        return None
    parts = [(where_of(part) or _ALWAYS) if isinstance(part, MetadataFilters) else _where(part) for part in filters.filters]
    if filters.condition == FilterCondition.OR:
        return {"$or": parts}
    if filters.condition == FilterCondition.NOT:
        return {"$not": {"$or": parts}}
    return {"$and": parts}


def _where(filter: MetadataFilter) -> dict[str, object]:
    key, value, operator = filter.key, filter.value, filter.operator
    if operator == FilterOperator.IS_EMPTY:
        return {"$or": [{key: {"$exists": False}}, *({key: {"$eq": empty}} for empty in _EMPTY)]}
    if value is None:  # no stored value equals None, and every one differs from it
        return _ALWAYS if operator in (FilterOperator.NE, FilterOperator.NIN) else _NEVER
    if operator in _PLAIN:
        return {key: {_PLAIN[operator]: value}}
    parts = [_contains(key, item) for item in (value if isinstance(value, list) else [value])]
    if operator == FilterOperator.ALL:
        return {"$and": parts} if parts else {key: {"$exists": True, "$ne": None}}
    return {"$or": parts} if parts else _NEVER


def _contains(key: str, value: object) -> dict[str, object]:
    conditions: list[dict[str, object]] = [{key: {"$contains": value}}]
    if isinstance(value, str):
        conditions.append({key: {"$match": value}})
    return {"$or": conditions}
