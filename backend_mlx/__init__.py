"""The MLX engine: Apple silicon and CPU. Read it beside backend_torch."""
