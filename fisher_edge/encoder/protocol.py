"""What every encoder is to the rest of the runtime, whichever library runs it."""

from collections.abc import Sequence
from typing import Protocol

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder.bundle import Bundle

__all__ = ["Encoder"]


class Encoder(Protocol):
    """A loaded bundle that has passed its self-test."""

    @property
    def bundle(self) -> Bundle:
        """The bundle of the encoder."""
        ...

    @property
    def name(self) -> str:
        """Name of the model and of the form it runs in: what a baseline records."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of the model and of the form it runs in: embeddings of different hashes must not be compared."""
        ...

    @property
    def provider(self) -> str:
        """Library and device in use, as shown to users."""
        ...

    @property
    def min_frames(self) -> int:
        """Frames of the shortest piece that can be embedded."""
        ...

    @property
    def call_tokens(self) -> int:
        """Tokens of one call that this encoder is quickest with here: patches of 16 frames by 16 bins."""
        ...

    @property
    def shares_calls(self) -> bool:
        """Whether one call may hold several pieces without a change of their embeddings."""
        ...

    def embed(self, pieces: Sequence[FloatArray]) -> list[FloatArray]:
        """Embed the sub-bands (bands, frames, band_width) of every piece: (bands, dim) each, in order.

        Pieces may differ in bands and frames. The embedding of a piece does not depend on the others; how many go into
        one call is the encoder's decision.
        """
        ...
