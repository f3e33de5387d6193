"""`python -m pipeline.cli` is the console script `tokenmill`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
