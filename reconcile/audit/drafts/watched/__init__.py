"""Rules by watching: existing records are saved in transactions that are rolled back, and what comes back of columns that were disturbed says what the saves write."""
