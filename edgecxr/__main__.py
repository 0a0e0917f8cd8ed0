"""Entry point of ``python -m edgecxr`` and ``torchrun -m edgecxr ...``."""

from edgecxr.cli import main

if __name__ == "__main__":
    main()
