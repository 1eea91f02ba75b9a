"""Models of other packages, as projects use them, with the packages' own signals and functions."""
