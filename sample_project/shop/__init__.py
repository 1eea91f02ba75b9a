"""Orders, items, articles and groups, with side effects hung on signals."""
