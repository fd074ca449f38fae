"""The FISHER student encoder: one sub-band in, one [CLS] embedding out.

Start at `Encoder`. Parameter names are the official state-dict keys, so released weights load without
renaming. Source: FISHER (arXiv 2507.16696), section II, and the released code (data2vec 2 blocks, post-norm).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fisher_edge.errors import BadArtifactError, BadInputError

__all__ = ["PRESETS", "Encoder", "EncoderConfig", "sin_cos_positions"]

LARGEST = {"embed_dim": 4096, "depth": 64, "num_heads": 64, "band_width": 4096, "patch_size": 256}
MOST_POSITIONS = 1 << 16
INIT_STD = 0.02


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of an encoder; the defaults are those of FISHER-tiny."""

    embed_dim: int = 192
    depth: int = 12
    num_heads: int = 3
    band_width: int = 100
    """Bins of a sub-band (40 Hz each); the bins past the last whole patch are not used."""
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-6
    patch_size: int = 16
    """Frames and bins of a patch."""
    max_length: int = 128
    max_freq: int = 50
    """The positions table has `max_length * max_freq` rows, of which the first n tokens are used."""
    flatten: Literal["freq", "time"] = "freq"
    """Token order: `freq` is time-major (`t * n_freq + f`), `time` is `f * n_time + t`."""

    def __post_init__(self) -> None:
        """Refuse shapes that no encoder can have, before anything is allocated."""
        for name, largest in LARGEST.items():
            value = getattr(self, name)
            if not 1 <= value <= largest:
                raise BadArtifactError(f"encoder has {name}={value}, outside 1 to {largest}; check its config")
        if not 1 <= self.max_length * self.max_freq <= MOST_POSITIONS or self.max_length < 1:
            raise BadArtifactError(
                f"positions table of max_length={self.max_length} x max_freq={self.max_freq} is empty or larger than "
                f"{MOST_POSITIONS} rows; check the encoder's config"
            )
        if self.embed_dim % self.num_heads or self.embed_dim % 4:
            raise BadArtifactError(
                f"embed_dim={self.embed_dim} is not a multiple of num_heads={self.num_heads} and of 4; check the config"
            )
        if self.band_width < self.patch_size:
            raise BadArtifactError(
                f"band_width={self.band_width} is less than patch_size={self.patch_size}; check the encoder's config"
            )
        if self.max_frames < self.patch_size:
            raise BadArtifactError(
                f"positions table of {self.max_length * self.max_freq} rows is shorter than one column of patches of "
                f"a band of {self.band_width} bins; check the encoder's config"
            )
        if not 0 < self.norm_eps < 1 or not 0 < self.mlp_ratio <= 16 or self.flatten not in {"freq", "time"}:
            raise BadArtifactError(
                f"encoder has norm_eps={self.norm_eps}, mlp_ratio={self.mlp_ratio}, flatten={self.flatten!r}; "
                "expected 0 < norm_eps < 1, 0 < mlp_ratio <= 16 and flatten 'freq' or 'time'"
            )

    @property
    def mlp_dim(self) -> int:
        """Width of a block's hidden layer."""
        return int(self.embed_dim * self.mlp_ratio)

    @property
    def max_frames(self) -> int:
        """Frames of the longest sub-band for which the positions table has rows."""
        return self.max_length * self.max_freq // (self.band_width // self.patch_size) * self.patch_size

    @property
    def used_bins(self) -> int:
        """Bins of a sub-band that patches cover; those above them are not used."""
        return self.band_width // self.patch_size * self.patch_size

    def patch_grid(self, frames: int) -> tuple[int, int]:
        """Patches (in time, in frequency) of a sub-band of so many frames."""
        return frames // self.patch_size, self.band_width // self.patch_size


PRESETS = {
    # Our own: with 3 patches across a band, a table of rows of 3 gives every (time, frequency) its true place.
    "nano": EncoderConfig(embed_dim=128, depth=6, num_heads=4, band_width=50, max_length=128, max_freq=3),
    "tiny": EncoderConfig(),
    "mini": EncoderConfig(embed_dim=256, num_heads=4),
    "small": EncoderConfig(embed_dim=384, num_heads=6, band_width=50),
}
"""Named shapes: `nano` is this project's default, the others are the published ones."""


class Encoder(nn.Module):
    """FISHER's student: patches, fixed positions, [CLS], post-norm transformer blocks."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.modality_encoders = nn.ModuleDict({"IMAGE": BandTokens(config)})
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.apply(_initialise)

    def forward(self, bands: Tensor) -> Tensor:
        """Embed sub-bands (n, frames, band_width), float32, as the [CLS] of the last block (n, embed_dim).

        Any number of frames from one patch up to `config.max_frames`; frames past the last whole patch are
        not used. Raises BadInputError for any other shape.
        """
        tokens: Tensor = self.modality_encoders["IMAGE"](bands)
        last = len(self.blocks) - 1
        for index, block in enumerate(self.blocks):
            # Only token 0 of the last block is read: its other queries and their MLP are left out, exactly.
            tokens = block(tokens, kept=1 if index == last else None)
        return tokens[:, 0]

    def encode_kept(self, bands: Tensor, kept: Tensor) -> Tensor:
        """Encode clones of sub-bands of which only some patches are kept: (n * clones, 1 + n_kept, dim), [CLS] first.

        `bands` are (n, frames, band_width); `kept` (n, clones, n_kept), int64, holds indices in token order (see
        objectives/masking.py). Masked patches are dropped before the first block, so they cost nothing.
        """
        embed: BandTokens = cast("BandTokens", self.modality_encoders["IMAGE"])
        patches = embed.patches(bands)
        index = kept.flatten(1).unsqueeze(2).expand(-1, -1, patches.shape[2])
        tokens = embed.with_cls(patches.gather(1, index).view(-1, kept.shape[2], patches.shape[2]))
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def ffn_outputs(self, bands: Tensor) -> Iterator[Tensor]:
        """Yield what the feed-forward layer of each block adds to the residual: (n, patches, dim), without [CLS].

        These are the targets of self-distillation (data2vec 2, EAT), given one by one so that they need not all
        be held.
        """
        tokens = self.modality_encoders["IMAGE"](bands)
        last = len(self.blocks) - 1
        for index, module in enumerate(self.blocks):
            block = cast("Block", module)
            normed, ffn = block.parts(tokens)
            yield ffn[:, 1:]
            if index != last:
                tokens = block.norm2(normed + ffn)


class BandTokens(nn.Module):
    """Sub-bands (n, frames, band_width) to tokens (n, 1 + patches, dim), [CLS] first."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.extra_tokens = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        # Dictionaries of one entry give the parameters their official names.
        self.local_encoder = nn.ModuleDict(
            {"proj": nn.Conv2d(1, config.embed_dim, config.patch_size, config.patch_size)}
        )
        self.fixed_positional_encoder = Positions(config)
        self.context_encoder = nn.ModuleDict({"norm": nn.LayerNorm(config.embed_dim, config.norm_eps)})

    def forward(self, bands: Tensor) -> Tensor:
        """Cut into patches, add the first n positions, put the [CLS] (which has none) in front, normalise."""
        return self.with_cls(self.patches(bands))

    def patches(self, bands: Tensor) -> Tensor:
        """Cut sub-bands into patches, project them and add the first n positions: (n, patches, dim)."""
        _check_bands(bands, self.config)
        patches: Tensor = self.local_encoder["proj"](bands.unsqueeze(1))  # (n, dim, n_time, n_freq)
        if self.config.flatten == "time":
            patches = patches.transpose(2, 3)
        return cast("Tensor", self.fixed_positional_encoder(patches.flatten(2).transpose(1, 2)))

    def with_cls(self, tokens: Tensor) -> Tensor:
        """Put the [CLS] in front of patches (n, length, dim) and normalise all of them."""
        tokens = torch.cat([self.extra_tokens.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        return cast("Tensor", self.context_encoder["norm"](tokens))


class Positions(nn.Module):
    """The fixed table of positions (1, rows, dim); tokens get its first rows, in token order."""

    positions: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.register_buffer("positions", sin_cos_positions(config.embed_dim, config.max_length, config.max_freq))

    def forward(self, tokens: Tensor) -> Tensor:
        """Add the first n positions to tokens (batch, n, dim)."""
        return tokens + self.positions[:, : tokens.shape[1]]


class Block(nn.Module):
    """Post-norm transformer block: `x = x + attn(x); r = norm1(x); x = norm2(r + mlp(r))`."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, config.norm_eps)
        self.attn = Attention(config.embed_dim, config.num_heads)
        self.norm2 = nn.LayerNorm(config.embed_dim, config.norm_eps)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(config.embed_dim, config.mlp_dim), "fc2": nn.Linear(config.mlp_dim, config.embed_dim)}
        )

    def forward(self, tokens: Tensor, kept: int | None = None) -> Tensor:
        """Transform tokens (n, length, dim); `kept` computes only the first so many of them."""
        normed, ffn = self.parts(tokens, kept)
        return cast("Tensor", self.norm2(normed + ffn))

    def parts(self, tokens: Tensor, kept: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the two summands of the block's output before its last norm: `r` and `mlp(r)`."""
        normed = self.norm1(tokens[:, :kept] + self.attn(tokens, kept))
        return normed, self.mlp["fc2"](functional.gelu(self.mlp["fc1"](normed)))


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, kept: int | None = None) -> Tensor:
        """Attend from the first `kept` tokens to all of (n, length, dim)."""
        n, length, dim = tokens.shape
        q, k, v = self.qkv(tokens).view(n, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q[:, :, :kept], k, v)
        return cast("Tensor", self.proj(mixed.transpose(1, 2).flatten(2)))


def sin_cos_positions(dim: int, rows: int, columns: int) -> Tensor:
    """Table (1, rows * columns, dim) of 2-D sin-cos positions, as in MAE: first half the column, then the row."""
    omega = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64), torch.arange(columns, dtype=torch.float64), indexing="ij"
    )
    angles = [grid.reshape(-1, 1) * omega for grid in (column, row)]
    table = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
    return table.float().unsqueeze(0)


def _check_bands(bands: Tensor, config: EncoderConfig) -> None:
    if torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
        return  # a graph is exported with shapes that were checked by whoever exports it
    shape = tuple(bands.shape)
    if bands.ndim != 3 or shape[2] != config.band_width:
        raise BadInputError(f"sub-bands have shape {shape}; this encoder takes (n, frames, {config.band_width})")
    if not config.patch_size <= shape[1] <= config.max_frames:
        raise BadInputError(
            f"sub-bands have {shape[1]} frames; this encoder takes {config.patch_size} to {config.max_frames}"
        )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.view(module.weight.shape[0], -1))
        assert module.bias is not None
        nn.init.zeros_(module.bias)
    elif isinstance(module, BandTokens):
        nn.init.trunc_normal_(module.extra_tokens, std=INIT_STD)
