"""LangChain's structured queries as `where` filters, for self-querying retrievers."""

from __future__ import annotations

from langchain_core.structured_query import Comparator, Comparison, Operation, Operator, StructuredQuery, Visitor

_COMPARATORS = {
    Comparator.EQ: "$eq",
    Comparator.NE: "$ne",
    Comparator.GT: "$gt",
    Comparator.GTE: "$gte",
    Comparator.LT: "$lt",
    Comparator.LTE: "$lte",
    Comparator.IN: "$in",
    Comparator.NIN: "$nin",
    Comparator.CONTAIN: "$contains",
}


class TPTranslator(Visitor):
    """Translate a structured query into the `filter` that `TPVectorStore` takes."""

    allowed_comparators = tuple(_COMPARATORS)
    allowed_operators = (Operator.AND, Operator.OR, Operator.NOT)

    def visit_operation(self, operation: Operation) -> dict[str, object]:
        """Return `$and`, `$or` or `$not` of the arguments."""
        self._validate_func(operation.operator)
        arguments = [argument.accept(self) for argument in operation.arguments]
        if operation.operator == Operator.NOT:
            return {"$not": arguments[0] if len(arguments) == 1 else {"$and": arguments}}
        return {f"${operation.operator.value}": arguments}

    def visit_comparison(self, comparison: Comparison) -> dict[str, object]:
        """Return one comparison; a date is compared as its text."""
        self._validate_func(comparison.comparator)
        value = comparison.value
        if isinstance(value, dict) and "date" in value:
            value = value["date"]
        return {comparison.attribute: {_COMPARATORS[comparison.comparator]: value}}

    def visit_structured_query(self, structured_query: StructuredQuery) -> tuple[str, dict[str, object]]:
        """Return the query and the search's keyword arguments."""
        options: dict[str, object] = (
            {} if structured_query.filter is None else {"filter": structured_query.filter.accept(self)}
        )
        if structured_query.limit is not None:
            options["k"] = structured_query.limit
        return structured_query.query, options
