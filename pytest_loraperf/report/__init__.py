"""What a run says: the table, the JSON. It reads results only."""
