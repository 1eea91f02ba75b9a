"""What kinds and remedies speak of: drift, scopes, finders, declarations, row locks."""
