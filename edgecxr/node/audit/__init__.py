"""The audit trail: who did what with which film, and when."""
