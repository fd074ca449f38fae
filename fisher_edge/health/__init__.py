"""Whether a sensor can be trusted: checks of its samples before anything is concluded from them."""
