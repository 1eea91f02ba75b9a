"""What signals cost: the statements that the effects of a save, a delete or a link need beyond its own."""
