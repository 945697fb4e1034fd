"""Train with MLX: python train_mlx.py [recipe] [section.field=value ...]."""

import sys

from tools.train import script

if __name__ == "__main__":
    sys.exit(script("mlx"))
