"""Sweeps, trials, leases and reports in SQLite or PostgreSQL, through SQLAlchemy Core."""
