"""Train with PyTorch: python train_torch.py [recipe] [section.field=value ...], or by torchrun."""

import sys

from tools.train import script

if __name__ == "__main__":
    sys.exit(script("torch"))
