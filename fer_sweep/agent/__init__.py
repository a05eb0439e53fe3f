"""The agent: one process a host that keeps its slots busy with trials."""
