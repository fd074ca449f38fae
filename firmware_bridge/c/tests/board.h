/* A board for the examples, in simulated time: a UART with registers of one byte, and bytes that take ten bits each.
 *
 * The host is the program that started this one (tests/simulated_board.py): it says until when to run and which bytes it
 * sends from now on, and gets those that have left the board meanwhile. Time passes in board_spend only. An example that
 * waits for a variable in a loop without it never gets on, and is ended after WATCHDOG_S of real time.
 */
#ifndef FISHER_TEST_BOARD_H
#define FISHER_TEST_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Begin: a UART of so many baud; one whose clock is wrong gets and sends other bytes. */
void board_open(double baud, bool wrong_clock);

uint64_t board_ns(void);
uint64_t board_us(void);

/* Let time pass: what happens in the hardware meanwhile interrupts the caller, unless that is an interrupt itself. */
void board_spend(uint64_t ns);

/* Take the byte in the receive register. One that is not taken before the next is complete is lost to it. */
bool board_take(uint8_t *byte);
bool board_has_byte(void);

/* Put a byte into the transmit register, which has to be free. */
void board_put(uint8_t byte);
bool board_can_put(void);
bool board_is_idle(void); /* everything has left */

/* Of the program that plays the rest of the board: */
uint64_t board_next_ns(void); /* when its own hardware does something next; UINT64_MAX: never */
void board_hardware(void); /* what happens without the processor, at every event */
void board_interrupt(void); /* what the processor does then; never inside of itself */

#ifdef __cplusplus
}
#endif

#endif
