"""Repairing: the chunk and its protocol, the journal, retries, pacing, caps, confirmation, the outbox."""
