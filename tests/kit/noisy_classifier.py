"""A small random classifier of noisy images with the layers that real ones have."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class TinyClassifier(nn.Module):
    """Convolutions, group norm, a time embedding, pooling and attention: (B, C, 8, 8), (1,) -> logits (B, classes)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.time = nn.Linear(1, 8)
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.qkv = nn.Conv1d(8, 24, 1)
        self.out = nn.Linear(8, classes)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.stem(x) + self.time(t[:, None] / 1000)[:, :, None, None]
        h = F.avg_pool2d(self.down(F.silu(self.norm(h))), 2)
        q, k, v = self.qkv(h.flatten(2)).transpose(1, 2).chunk(3, dim=2)
        h = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        out: Tensor = self.out(h.mean(dim=1))
        return out


def tiny_classifier(channels: int, classes: int) -> TinyClassifier:
    """With weights large enough that its gradient moves images."""
    generator = torch.Generator().manual_seed(3)
    classifier = TinyClassifier(channels, classes).eval()
    for parameter in classifier.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
        parameter.requires_grad_(False)
    return classifier
