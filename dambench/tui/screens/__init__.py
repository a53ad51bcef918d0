"""The console's places."""
