"""The processes of runs, and what their machine is doing meanwhile."""
