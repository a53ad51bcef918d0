"""How the field compares real images with synthetic ones:
distributions, attention, gradients, trajectories, coresets.
"""
