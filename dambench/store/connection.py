"""A connection to a database of SQLite, as the store hands it around."""

import sqlite3


class Database:
    """A connection, and what belongs to it. `sqlite_utils` has more of this name, and takes numpy in with it.

    Args:
        conn: with whose end this one ends.
    """

    def __init__(self, conn: sqlite3.Connection):
        self.conn = conn
        conn.execute("pragma recursive_triggers = on")  # a row that is replaced is deleted, and triggers see it

    def close(self) -> None:
        self.conn.close()
