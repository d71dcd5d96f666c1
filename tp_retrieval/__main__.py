"""The command line, as `python -m tp_retrieval`."""

from tp_retrieval.cli.main import main

if __name__ == "__main__":
    main()
