"""Whether two paths leave the same behind: what each did is told without the keys that the database made, and compared."""
