/* A board for the examples: their pty and their time, on this machine, so that they run as they are. */
#ifndef FISHER_TEST_BOARD_H
#define FISHER_TEST_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Open the pty and print its name as the emulator does. */
void board_open(void);

/* Microseconds since it was opened. */
uint64_t board_us(void);

/* Take one byte of the host, if there is one. */
bool board_read(uint8_t *byte);

/* Send bytes; waits while the host is behind. */
void board_write(const uint8_t *bytes, size_t count);

/* Let a millisecond pass, or less when bytes come. */
void board_wait(void);

#ifdef __cplusplus
}
#endif

#endif
