"""What every record of the sample shop must have: one subject a file."""
