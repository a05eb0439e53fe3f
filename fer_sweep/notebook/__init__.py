"""What a notebook shows of sweeps: cells as HTML with small figures, and data frames."""
