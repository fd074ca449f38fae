/* What the Zephyr example uses of UARTs. */
#ifndef ZEPHYR_UART_STUB_H
#define ZEPHYR_UART_STUB_H

#include <zephyr/device.h>

void uart_poll_out(const struct device *uart, unsigned char byte);
int uart_poll_in(const struct device *uart, unsigned char *byte);

#endif
