"""`python -m dambench` is the same as `dambench`."""

from dambench.cli import main

if __name__ == "__main__":
    main()
