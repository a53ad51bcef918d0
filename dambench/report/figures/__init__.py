"""Figures for papers, a file per kind, drawn by matplotlib, which comes with `dambench[figures]`.

Each kind takes what the store has and gives a `Drawn`: the figure, a caption that says what it shows, and notes on what
it leaves out. The same runs give the same bytes with the same version of matplotlib.
"""
