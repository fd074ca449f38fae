"""The demonstration: three real sensors, enrolled, replayed healthy and then faulty, all on this machine."""
