/* What Zephyr programs use of the kernel, so that any compiler can check them. */
#ifndef ZEPHYR_KERNEL_STUB_H
#define ZEPHYR_KERNEL_STUB_H

#include <stddef.h>
#include <stdint.h>

struct k_timer {
    void (*expiry)(struct k_timer *timer);
    int64_t period_us;
    int64_t due_us;
    uint32_t status;
};
struct k_sem {
    unsigned count;
    unsigned limit;
};
typedef struct {
    int64_t ticks;
} k_timeout_t;

#define K_USEC(us) ((k_timeout_t){us})
#define K_FOREVER ((k_timeout_t){-1})
#define K_SEM_DEFINE(name, initial, most) struct k_sem name = {initial, most}

void k_timer_init(struct k_timer *timer, void (*expiry)(struct k_timer *), void (*stop)(struct k_timer *));
void k_timer_start(struct k_timer *timer, k_timeout_t first, k_timeout_t period);
uint32_t k_timer_status_get(struct k_timer *timer);
uint32_t k_timer_status_sync(struct k_timer *timer);
int k_sem_take(struct k_sem *semaphore, k_timeout_t timeout);
void k_sem_give(struct k_sem *semaphore);
uint32_t k_cycle_get_32(void);
uint32_t sys_clock_hw_cycles_per_sec(void);

#endif
