"""What a deployable model is: its card, its files, its quality gate and the records of its engines."""
