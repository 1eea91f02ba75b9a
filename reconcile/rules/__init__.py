"""What you write: the rule, how it is found, named, ordered and recognised."""
