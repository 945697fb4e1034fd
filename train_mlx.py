"""Train with MLX: python train_mlx.py [recipe] [section.field=value ...]."""

from tools.environment import leave
from tools.train import script

if __name__ == "__main__":
    leave(script("mlx"))
