/* Runs the Zephyr example on the simulated board, over a UART without a FIFO. Fetching a sample takes as long as on a slow
 * bus. The axes of sample n are n, -n and n / 1000 m/s^2, n from -3000 to 3000: more than 300 g. */
#include "board.h"

#include <zephyr/drivers/sensor.h>
#include <zephyr/drivers/uart.h>
#include <zephyr/kernel.h>
#include <zephyr/sys/ring_buffer.h>

enum { BAUD = 115200, CALL_NS = 500, SWITCH_NS = 5000, FETCH_NS = 400000, LARGEST = 3000 };

const struct device stub_fisher_uart = {"uart"}, stub_accel0 = {"accel"};
static int32_t sample = -LARGEST;
static struct k_timer *timer;
static uart_irq_callback_user_data_t callback;
static bool receiving, sending;

#define main example_main
#include "../examples/zephyr/src/main.c"
#undef main

uint64_t board_next_ns(void) {
    return timer != NULL && timer->due_us * 1000 > (int64_t)board_ns() ? (uint64_t)timer->due_us * 1000 : UINT64_MAX;
}

void board_hardware(void) {
}

static bool uart_interrupts(void) {
    return callback != NULL && ((receiving && board_has_byte()) || (sending && board_can_put()));
}

void board_interrupt(void) {
    while (timer != NULL && timer->due_us <= (int64_t)board_us()) {
        timer->due_us += timer->period_us;
        timer->status++;
        if (timer->expiry != NULL) {
            timer->expiry(timer);
        }
    }
    while (uart_interrupts()) {
        callback(&stub_fisher_uart, NULL);
    }
}

void uart_poll_out(const struct device *uart_device, unsigned char byte) {
    (void)uart_device;
    while (!board_can_put()) {
        board_spend(CALL_NS);
    }
    board_put(byte);
}

int uart_poll_in(const struct device *uart_device, unsigned char *byte) {
    (void)uart_device;
    board_spend(CALL_NS);
    return board_take(byte) ? 0 : -1;
}

int uart_irq_callback_set(const struct device *uart_device, uart_irq_callback_user_data_t function) {
    (void)uart_device;
    callback = function;
    return 0;
}

void uart_irq_rx_enable(const struct device *uart_device) {
    (void)uart_device;
    receiving = true;
    board_spend(CALL_NS);
}

void uart_irq_tx_enable(const struct device *uart_device) {
    (void)uart_device;
    sending = true;
    board_spend(CALL_NS);
}

void uart_irq_tx_disable(const struct device *uart_device) {
    (void)uart_device;
    sending = false;
}

int uart_irq_update(const struct device *uart_device) {
    (void)uart_device;
    board_spend(CALL_NS);
    return 1;
}

int uart_irq_is_pending(const struct device *uart_device) {
    (void)uart_device;
    return uart_interrupts();
}

int uart_irq_rx_ready(const struct device *uart_device) {
    (void)uart_device;
    return board_has_byte();
}

int uart_irq_tx_ready(const struct device *uart_device) {
    (void)uart_device;
    return sending && board_can_put();
}

int uart_fifo_read(const struct device *uart_device, uint8_t *bytes, const int size) {
    (void)uart_device;
    return size > 0 && board_take(bytes) ? 1 : 0;
}

int uart_fifo_fill(const struct device *uart_device, const uint8_t *bytes, int count) {
    (void)uart_device;
    if (count <= 0 || !board_can_put()) {
        return 0;
    }
    board_put(*bytes);
    return 1;
}

uint32_t ring_buf_space_get(struct ring_buf *ring) {
    return ring->size - (ring->put - ring->taken);
}

uint32_t ring_buf_put(struct ring_buf *ring, const uint8_t *bytes, uint32_t count) {
    uint32_t room = ring_buf_space_get(ring);
    count = count < room ? count : room;
    for (uint32_t i = 0; i < count; i++) {
        ring->buffer[(ring->put + i) % ring->size] = bytes[i];
    }
    ring->put += count;
    return count;
}

uint32_t ring_buf_get_claim(struct ring_buf *ring, uint8_t **bytes, uint32_t size) {
    uint32_t first = ring->taken % ring->size, count = ring->put - ring->taken;
    count = count < ring->size - first ? count : ring->size - first;
    *bytes = ring->buffer + first;
    return count < size ? count : size;
}

int ring_buf_get_finish(struct ring_buf *ring, uint32_t count) {
    ring->taken += count;
    return 0;
}

uint32_t ring_buf_get(struct ring_buf *ring, uint8_t *bytes, uint32_t size) {
    uint32_t count = 0;
    for (; count < size && ring->taken != ring->put; count++) {
        bytes[count] = ring->buffer[ring->taken++ % ring->size];
    }
    return count;
}

int sensor_sample_fetch(const struct device *sensor) {
    (void)sensor;
    board_spend(FETCH_NS);
    sample = sample == LARGEST ? -LARGEST : sample + 1;
    return 0;
}

int sensor_channel_get(const struct device *sensor, enum sensor_channel channel, struct sensor_value *value) {
    (void)sensor;
    (void)channel;
    value[0] = (struct sensor_value){sample, 0};
    value[1] = (struct sensor_value){-sample, 0};
    value[2] = (struct sensor_value){sample / 1000, sample % 1000 * 1000};
    return 0;
}

void k_timer_init(struct k_timer *made, void (*expiry)(struct k_timer *), void (*stop)(struct k_timer *)) {
    (void)stop;
    made->expiry = expiry;
    made->status = 0;
}

void k_timer_start(struct k_timer *started, k_timeout_t first, k_timeout_t period) {
    started->due_us = (int64_t)board_us() + first.ticks;
    started->period_us = period.ticks;
    timer = started;
}

uint32_t k_timer_status_get(struct k_timer *asked) {
    uint32_t status = asked->status;
    asked->status = 0;
    return status;
}

uint32_t k_timer_status_sync(struct k_timer *asked) {
    while (asked->status == 0) {
        board_spend(SWITCH_NS);
    }
    return k_timer_status_get(asked);
}

int k_sem_take(struct k_sem *semaphore, k_timeout_t timeout) {
    (void)timeout;
    do {
        board_spend(SWITCH_NS);
    } while (semaphore->count == 0);
    semaphore->count--;
    return 0;
}

void k_sem_give(struct k_sem *semaphore) {
    semaphore->count += semaphore->count < semaphore->limit;
}

uint32_t k_cycle_get_32(void) {
    return (uint32_t)board_us();
}

uint32_t sys_clock_hw_cycles_per_sec(void) {
    return 1000000;
}

int main(void) {
    board_open(BAUD, false);
    return example_main();
}
