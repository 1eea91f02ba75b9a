"""A shop with orders, items, articles and groups, whose side effects are receivers of signals."""
