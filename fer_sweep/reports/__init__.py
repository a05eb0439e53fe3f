"""Reports of sweeps: HTML, Markdown, tables, the dashboard and W&B views."""
