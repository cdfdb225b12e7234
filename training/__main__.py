"""`python -m training data|train …` is `viva data|train …`."""

from services.cli import main

if __name__ == "__main__":
    main()
