"""What is measured on a synthetic set, a file each."""
