"""How many agents one PostgreSQL bears: simulated agents on one sweep whose trials cost nothing."""
