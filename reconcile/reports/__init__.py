"""The reports, one file per format. A format takes values and returns text or rich renderables; it prints nothing."""
