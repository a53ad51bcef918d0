"""The console: places to look at runs.db from."""
