"""Models of every shape that rules meet: keys, defaults, generated columns, links without foreign keys."""
