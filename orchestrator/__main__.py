"""`python -m orchestrator` is `aurora`."""

from orchestrator.cli.main import main

if __name__ == "__main__":
    main()
