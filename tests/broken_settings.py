"""Settings that raise."""

1 / 0  # noqa: B018
