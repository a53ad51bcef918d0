"""What the console's places are put together from."""
