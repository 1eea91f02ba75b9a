"""`HaveValues`: the declaration, its finder in SQL, its finder in Python, and trees."""
