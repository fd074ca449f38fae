"""Serial bridge from microcontrollers: frames, clock and the serial source."""
