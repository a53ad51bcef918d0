"""The ways to write a leaderboard, a file each; all of them print the same numbers."""
