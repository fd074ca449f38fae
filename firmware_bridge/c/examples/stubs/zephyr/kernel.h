/* What the Zephyr example uses of the kernel, so that any compiler can check it. */
#ifndef ZEPHYR_KERNEL_STUB_H
#define ZEPHYR_KERNEL_STUB_H

#include <stddef.h>
#include <stdint.h>

struct k_timer {
    uint32_t status;
};
typedef struct {
    int64_t ticks;
} k_timeout_t;

#define K_USEC(us) ((k_timeout_t){us})

void k_timer_init(struct k_timer *timer, void (*expiry)(struct k_timer *), void (*stop)(struct k_timer *));
void k_timer_start(struct k_timer *timer, k_timeout_t first, k_timeout_t period);
uint32_t k_timer_status_sync(struct k_timer *timer);
uint32_t k_cycle_get_32(void);
uint32_t sys_clock_hw_cycles_per_sec(void);

#endif
