"""Edge monitoring of industrial machines with one encoder for every sensor.

Follow a sample: sources -> dsp -> encoder -> decision -> publish; `daemon` ties them together.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("fisher-edge")
