"""Entry point of ``python -m edgecxr``, which is also how ``torchrun -m edgecxr ...`` starts it."""

from edgecxr.cli import main

if __name__ == "__main__":
    main()
