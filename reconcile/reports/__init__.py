"""What people and machines read: one file per format. Reports are values in, text out; they print nothing."""
