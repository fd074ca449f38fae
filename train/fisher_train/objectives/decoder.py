"""The light decoder of self-distillation: convolutions over the patch grid, discarded after training."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Decoder"]


class Decoder(nn.Module):
    """Predicts the teacher's target of every patch from the student's kept ones and noise in place of the others.

    Source: EAT (arXiv 2401.03497) and data2vec 2: 6 grouped 3 x 3 convolutions, each followed by a LayerNorm
    over channels without affine, GELU and the residual of its input; a linear layer at the end.
    """

    def __init__(self, dim: int, *, layers: int = 6, kernel: int = 3, groups: int = 16) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=groups) for _ in range(layers)
        )
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        """Map patches (n, rows * columns, dim) in token order to predictions of the same shape."""
        grid = tokens.view(tokens.shape[0], rows, columns, -1)  # channels last, which is how LayerNorm wants them
        for convolution in self.convolutions:
            mixed = convolution(grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            grid = grid + functional.gelu(functional.layer_norm(mixed, mixed.shape[-1:]))
        return cast("Tensor", self.proj(grid.flatten(1, 2)))
