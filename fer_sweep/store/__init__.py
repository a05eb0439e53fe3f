"""The state of embedded sweeps, and the leases and reports of all: trials and sweeps in SQLite or PostgreSQL."""
