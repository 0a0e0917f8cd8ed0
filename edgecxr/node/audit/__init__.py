"""The audit trail: who sent, read, looked at and got what, and when."""
