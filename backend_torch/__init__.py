"""The PyTorch engine: CUDA and CPU. Read it beside backend_mlx."""
