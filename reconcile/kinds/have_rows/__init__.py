"""`HaveRows`: the declaration, and the finders that compare the two sides in Python."""
