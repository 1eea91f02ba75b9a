"""The methods of Django's managers, querysets and records by what they do; those whose names begin with `a` are awaited and do the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["CHANGES", "DELETES", "MAKES", "READS", "SAVES", "SYNC", "WRITES"]


def _in_both_forms(names: Iterable[str]) -> frozenset[str]:
    return frozenset(form for each in names for form in (each, f"a{each}"))


MAKES = _in_both_forms(["create", "get_or_create", "update_or_create"])
"""What makes one row, with its signals."""

SAVES = MAKES | _in_both_forms(["save"]) | {"save_base"}
"""What saves one row, with its signals."""

DELETES = _in_both_forms(["delete"])
"""What deletes rows, with their signals; of a queryset without the model's own delete()."""

CHANGES = _in_both_forms(["add", "set", "remove", "clear"])
"""What changes which rows belong to a record."""

WRITES = (
    SAVES | DELETES | CHANGES | _in_both_forms(["bulk_create", "bulk_update", "update"]) | {"_raw_delete"}
)
"""What writes rows in any way."""

READS = _in_both_forms([
    "aggregate", "contains", "count", "earliest", "exists", "explain", "first", "get", "in_bulk", "iterator", "last", "latest",
]) | frozenset({
    "alias", "all", "annotate", "dates", "datetimes", "db_manager", "defer", "difference", "distinct", "exclude", "filter", "get_queryset",
    "intersection", "none", "only", "order_by", "prefetch_related", "reverse", "select_for_update", "select_related", "union", "using", "values",
    "values_list",
}) | frozenset({"clear_cache", "get_by_natural_key", "get_for_id", "get_for_model", "get_for_models"})  # fmt: skip
"""What writes no rows; the last are those of Django's own managers, of content types for one."""

SYNC: Mapping[str, str] = {f"a{each}": each for each in WRITES | READS if f"a{each}" in WRITES | READS}
"""The method that each awaited one calls."""
