"""Finding drift: checking a rule, explaining it, inspecting one record. Writes nothing."""
