"""What the header of runs.db says: whose file it is, and of which schema."""

APPLICATION_ID = 0x64616D62  # «damb»
"""Written into the file's header, so that another program's database is never taken for ours."""

VERSION = 9
"""How many migrations this dambench knows: the file's `user_version`."""
