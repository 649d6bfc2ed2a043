"""`python -m entracte`"""

from entracte.cli.main import main

if __name__ == "__main__":
    main()
