"""What a rule says in words: expressions, conditions, paths, models and functions. Two that differ in SQL never read alike."""
