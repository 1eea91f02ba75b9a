"""The audit of signals: what a save sets off, and which rule covers it."""
