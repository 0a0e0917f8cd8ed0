"""Pictures for people on a workstation. All of matplotlib is here."""
