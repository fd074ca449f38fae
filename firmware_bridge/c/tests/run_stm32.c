/* Runs the STM32 example on the simulated board: `run_stm32 [MS...]` has a line error at each of these milliseconds, which
 * ends reception as the HAL does. With __DCACHE_PRESENT the processor sees memory through a cache that it has to maintain. */
#include "board.h"
#include "stm32_hal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 3, RATE_HZ = 12800, LINE_BYTES = 32, CALL_NS = 200, INTERRUPT_NS = 1500 };

static const double BAUD = 2000000;

static DMA_HandleTypeDef receiving_dma;
ADC_HandleTypeDef hadc1;
UART_HandleTypeDef huart2 = {HAL_UART_STATE_READY, HAL_UART_STATE_READY, &receiving_dma};
TIM_HandleTypeDef htim2;

static uint16_t *samples;
static uint32_t sample_count, next_sample, halves_pending[2];
static uint64_t started_ns, conversions;
static uint16_t value;
static const uint8_t *sending;
static uint8_t *receiving, *expected;
static uint32_t send_count, sent, receive_size, received;
static uint64_t error_ns[8];
static size_t errors, errors_done;
static bool error_pending;

/* Memory as the DMA sees it: itself, or what lies behind the cache. */
#if defined(__DCACHE_PRESENT) && __DCACHE_PRESENT == 1U

extern uint8_t __bss_start[], _end[];
static uint8_t *behind_cache;

static uint8_t *memory(const void *address) {
    if (behind_cache == NULL) {
        behind_cache = calloc(1, (size_t)(_end - __bss_start));
    }
    return behind_cache + ((const uint8_t *)address - __bss_start);
}

static void whole_lines(uintptr_t address, int32_t bytes) {
    if (address % LINE_BYTES != 0 || bytes % LINE_BYTES != 0) {
        fprintf(stderr, "error: %ld bytes at %p are not whole lines of the cache\n", (long)bytes, (void *)address);
        exit(8);
    }
}

void SCB_CleanDCache_by_Addr(volatile void *address, int32_t bytes) {
    const uint8_t *seen = (const uint8_t *)(uintptr_t)address;
    whole_lines((uintptr_t)address, bytes);
    memcpy(memory(seen), seen, (size_t)bytes);
}

void SCB_InvalidateDCache_by_Addr(volatile void *address, int32_t bytes) {
    uint8_t *seen = (uint8_t *)(uintptr_t)address;
    whole_lines((uintptr_t)address, bytes);
    memcpy(seen, memory(seen), (size_t)bytes);
}

#else

static uint8_t *memory(const void *address) {
    return (uint8_t *)(uintptr_t)address;
}

#endif

__attribute__((weak)) void HAL_UART_RxCpltCallback(UART_HandleTypeDef *uart) {
    (void)uart;
}

__attribute__((weak)) void HAL_UART_TxCpltCallback(UART_HandleTypeDef *uart) {
    (void)uart;
}

__attribute__((weak)) void HAL_UART_ErrorCallback(UART_HandleTypeDef *uart) {
    (void)uart;
}

HAL_StatusTypeDef HAL_ADC_Start_DMA(ADC_HandleTypeDef *adc, uint32_t *data, uint32_t length) {
    (void)adc;
    samples = (uint16_t *)(void *)data;
    sample_count = length;
    started_ns = board_ns();
    next_sample = halves_pending[0] = halves_pending[1] = 0;
    conversions = 0;
    value = 0;
    return HAL_OK;
}

HAL_StatusTypeDef HAL_ADC_Stop_DMA(ADC_HandleTypeDef *adc) {
    (void)adc;
    samples = NULL;
    return HAL_OK;
}

HAL_StatusTypeDef HAL_UART_Transmit_DMA(UART_HandleTypeDef *uart, const uint8_t *data, uint16_t size) {
    board_spend(CALL_NS);
    if (uart->gState != HAL_UART_STATE_READY) {
        return HAL_BUSY;
    }
    uart->gState = HAL_UART_STATE_BUSY_TX;
    sending = data;
    send_count = size;
    sent = 0;
    return HAL_OK;
}

HAL_StatusTypeDef HAL_UART_Receive_DMA(UART_HandleTypeDef *uart, uint8_t *data, uint16_t size) {
    if (uart->RxState != HAL_UART_STATE_READY) {
        return HAL_BUSY;
    }
    uart->RxState = HAL_UART_STATE_BUSY_RX;
    receiving = data;
    receiving_dma.remaining = receive_size = size;
    received = 0;
    return HAL_OK;
}

HAL_StatusTypeDef HAL_UART_Receive_IT(UART_HandleTypeDef *uart, uint8_t *data, uint16_t size) {
    (void)size;
    uart->RxState = HAL_UART_STATE_BUSY_RX;
    expected = data;
    return HAL_OK;
}

uint32_t stub_timer_counter(const TIM_HandleTypeDef *timer) {
    (void)timer;
    return (uint32_t)board_us();
}

uint32_t stub_dma_counter(const DMA_HandleTypeDef *dma) {
    return dma->remaining;
}

static uint64_t next_conversion_ns(void) {
    return started_ns + (conversions + 1) * 1000000000 / RATE_HZ;
}

uint64_t board_next_ns(void) {
    uint64_t next_ns = samples != NULL ? next_conversion_ns() : UINT64_MAX;
    return errors_done < errors && error_ns[errors_done] < next_ns ? error_ns[errors_done] : next_ns;
}

static void convert(void) {
    for (int channel = 0; channel < WIDTH; channel++) {
        uint16_t converted = value++ & 0x0fff;
        memcpy(memory(&samples[next_sample++]), &converted, sizeof converted);
    }
    conversions++;
    if (next_sample % (sample_count / 2) == 0) {
        halves_pending[next_sample == sample_count]++;
        next_sample %= sample_count;
    }
}

void board_hardware(void) {
    while (samples != NULL && next_conversion_ns() <= board_ns()) {
        convert();
    }
    if (receiving != NULL && board_take(memory(receiving) + received)) {
        received = (received + 1) % receive_size;
        receiving_dma.remaining = receive_size - received;
    }
    if (sending != NULL && sent < send_count && board_can_put()) {
        board_put(*memory(sending + sent++));
    }
    if (errors_done < errors && error_ns[errors_done] <= board_ns()) {
        errors_done++;
        error_pending = true;
        receiving = expected = NULL; /* the HAL ends reception on any error of the line, by DMA, and on an overrun */
    }
}

void board_interrupt(void) {
    uint8_t *into = expected;
    if (error_pending) {
        error_pending = false;
        huart2.RxState = HAL_UART_STATE_READY;
        HAL_UART_ErrorCallback(&huart2);
    }
    if (expected != NULL && board_take(into)) {
        expected = NULL;
        huart2.RxState = HAL_UART_STATE_READY;
        board_spend(INTERRUPT_NS);
        HAL_UART_RxCpltCallback(&huart2);
    }
    if (sending != NULL && sent == send_count && board_is_idle()) {
        sending = NULL;
        huart2.gState = HAL_UART_STATE_READY;
        HAL_UART_TxCpltCallback(&huart2);
    }
    for (int half = 0; half < 2; half++) {
        for (; halves_pending[half] > 0; halves_pending[half]--) {
            (half == 0 ? HAL_ADC_ConvHalfCpltCallback : HAL_ADC_ConvCpltCallback)(&hadc1);
        }
    }
}

/* What else the main loop does: up to 0.8 ms, always the same numbers. */
static uint64_t other_work_ns(void) {
    static uint32_t chance = 1;
    chance = chance * 1664525u + 1013904223u;
    return chance / 5368; /* of 2^32 */
}

int main(int count, char **arguments) {
    for (int i = 1; i < count && errors < sizeof error_ns / sizeof *error_ns; i++) {
        error_ns[errors++] = strtoull(arguments[i], NULL, 10) * 1000000;
    }
    board_open(BAUD, false);
    fisher_start_up(7);
    for (;;) {
        fisher_poll();
        board_spend(other_work_ns());
    }
}
