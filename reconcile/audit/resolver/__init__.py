"""What an expression in the source stands for: which model, its rows, one of them, or nothing of Django's. Reads the source and the live registry, imports and runs nothing."""
