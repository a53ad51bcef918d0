"""runs.db: its tables, what is written and read, and the only place where numbers are pooled."""
