"""Where samples come from: each source yields time-stamped blocks."""
