"""Train with PyTorch: python train_torch.py [recipe] [section.field=value ...], or by torchrun."""

from tools.environment import leave
from tools.train import script

if __name__ == "__main__":
    leave(script("torch"))
