"""Which encoder runs a bundle. See `open_encoder`."""

from fisher_edge.encoder.bundle import Bundle
from fisher_edge.encoder.ort import OrtEncoder
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.errors import UsageError

__all__ = ["PROVIDERS", "open_encoder"]

PROVIDERS = ("auto", "cpu")


def open_encoder(bundle: Bundle, provider: str = "auto") -> Encoder:
    """Load a bundle; "auto" is the best provider there is.

    Raises UsageError for a provider that this build does not have, BadArtifactError for a model that does not run or
    does not pass its self-test.
    """
    if provider not in PROVIDERS:
        raise UsageError(f"provider {provider!r} is not in this build; choose one of: {', '.join(PROVIDERS)}")
    return OrtEncoder(bundle)
