/* Runs the Zephyr example on this machine: its axes are a count, the count negated, and a thousandth of the count. */
#include "board.h"

#include <zephyr/drivers/sensor.h>
#include <zephyr/drivers/uart.h>
#include <zephyr/kernel.h>

const struct device stub_fisher_uart = {"uart"}, stub_accel0 = {"accel"};
static int32_t count;
static uint64_t period_us, expired_us;

#define main example_main
#include "../examples/zephyr/src/main.c"
#undef main

void uart_poll_out(const struct device *device, unsigned char byte) {
    (void)device;
    board_write(&byte, 1);
}

int uart_poll_in(const struct device *device, unsigned char *byte) {
    (void)device;
    return board_read(byte) ? 0 : -1;
}

int sensor_sample_fetch(const struct device *device) {
    (void)device;
    count++;
    return 0;
}

int sensor_channel_get(const struct device *device, enum sensor_channel channel, struct sensor_value *value) {
    (void)device;
    (void)channel;
    value[0] = (struct sensor_value){count, 0};
    value[1] = (struct sensor_value){-count, 0};
    value[2] = (struct sensor_value){0, count};
    return 0;
}

void k_timer_init(struct k_timer *timer, void (*expiry)(struct k_timer *), void (*stop)(struct k_timer *)) {
    (void)expiry;
    (void)stop;
    timer->status = 0;
}

void k_timer_start(struct k_timer *timer, k_timeout_t first, k_timeout_t period) {
    (void)timer;
    (void)first;
    period_us = (uint64_t)period.ticks;
    expired_us = board_us();
}

/* Waits, and returns how many periods have passed. */
uint32_t k_timer_status_sync(struct k_timer *timer) {
    uint64_t periods;
    (void)timer;
    while ((periods = (board_us() - expired_us) / period_us) == 0) {
        board_wait();
    }
    expired_us += periods * period_us;
    return (uint32_t)periods;
}

uint32_t k_cycle_get_32(void) {
    return (uint32_t)board_us();
}

uint32_t sys_clock_hw_cycles_per_sec(void) {
    return 1000000;
}

int main(void) {
    board_open();
    return example_main();
}
