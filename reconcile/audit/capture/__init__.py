"""What one act does, seen whole and rolled back: rows, messages, mails, callbacks and statements."""
