"""`HaveSource`: the declaration, and the finders of rows whose owner is gone."""
