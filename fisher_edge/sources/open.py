"""From a source in the configuration to the object that yields its blocks. See `open_source`."""

import time
from collections.abc import Callable
from pathlib import Path

from fisher_edge.config import ChannelConfig
from fisher_edge.config.errors import joined
from fisher_edge.config.load import source_mistakes
from fisher_edge.config.plugins import checked_keys, source_function
from fisher_edge.errors import FisherEdgeError, UsageError
from fisher_edge.sources.source import Source, SourceContext

__all__ = ["open_source"]


def open_source(
    config: ChannelConfig, base_dir: Path | None = None, *, clock: Callable[[], float] = time.time
) -> Source:
    """Return the source of a channel, which opens nothing before it is entered; its paths count from `base_dir`.

    Raises UsageError for wrong keys, MissingExtraError when its type needs more packages.
    """
    where = f"source of channel {config.key}"
    table = {"type": config.source.type, **config.source.options}
    if mistakes := source_mistakes(table):
        raise UsageError(f"{where}: {joined(mistakes)}")
    context = SourceContext(config.key, base_dir or Path(), config.unit, config.scale, clock)
    function = source_function(config.source.type)
    try:
        source: Source = function(context, **checked_keys(function, config.source.options))
    except FisherEdgeError as error:
        raise UsageError(f"{where}: {error}") from error
    return source
