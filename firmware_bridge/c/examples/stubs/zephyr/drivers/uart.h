/* What Zephyr programs use of UARTs: polled and driven by interrupts. */
#ifndef ZEPHYR_UART_STUB_H
#define ZEPHYR_UART_STUB_H

#include <stdint.h>
#include <zephyr/device.h>

typedef void (*uart_irq_callback_user_data_t)(const struct device *uart, void *user_data);

void uart_poll_out(const struct device *uart, unsigned char byte);
int uart_poll_in(const struct device *uart, unsigned char *byte);

int uart_irq_callback_set(const struct device *uart, uart_irq_callback_user_data_t callback);
void uart_irq_rx_enable(const struct device *uart);
void uart_irq_tx_enable(const struct device *uart);
void uart_irq_tx_disable(const struct device *uart);
int uart_irq_update(const struct device *uart);
int uart_irq_is_pending(const struct device *uart);
int uart_irq_rx_ready(const struct device *uart);
int uart_irq_tx_ready(const struct device *uart);
int uart_fifo_read(const struct device *uart, uint8_t *bytes, const int size);
int uart_fifo_fill(const struct device *uart, const uint8_t *bytes, int count);

#endif
