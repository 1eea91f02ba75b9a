"""What people and machines read: one file per format. Reports are values in, text or rich renderables out; they print nothing."""
