/* Runs the STM32 example on this machine: the DMA of its ADC fills halves with a count, its UART sends at once. */
#include "board.h"
#include "stm32_hal.h"

#include <stddef.h>

enum { HALF_SAMPLES = 128, WIDTH = 3, RATE_HZ = 12800 };

ADC_HandleTypeDef hadc1;
UART_HandleTypeDef huart2;
TIM_HandleTypeDef htim2;
static uint16_t *buffer;
static uint64_t started_us, halves;
static uint16_t value;
static uint8_t *expected;

int HAL_ADC_Start_DMA(ADC_HandleTypeDef *adc, uint32_t *data, uint32_t length) {
    (void)adc;
    (void)length;
    buffer = (uint16_t *)(void *)data;
    started_us = board_us();
    halves = 0;
    value = 0;
    return 0;
}

int HAL_ADC_Stop_DMA(ADC_HandleTypeDef *adc) {
    (void)adc;
    buffer = NULL;
    return 0;
}

int HAL_UART_Transmit_DMA(UART_HandleTypeDef *uart, const uint8_t *data, uint16_t size) {
    (void)uart;
    board_write(data, size);
    return 0;
}

int HAL_UART_Receive_IT(UART_HandleTypeDef *uart, uint8_t *data, uint16_t size) {
    (void)uart;
    (void)size;
    expected = data;
    return 0;
}

/* What the hardware would have done by now. */
static void pass_time(void) {
    htim2.counter = (uint32_t)board_us();
    while (expected != NULL && board_read(expected)) {
        HAL_UART_RxCpltCallback(&huart2);
    }
    if (buffer != NULL && (board_us() - started_us) * RATE_HZ / 1000000 >= (halves + 1) * HALF_SAMPLES) {
        uint16_t *half = buffer + halves % 2 * HALF_SAMPLES * WIDTH;
        for (size_t i = 0; i < HALF_SAMPLES * WIDTH; i++) {
            half[i] = (uint16_t)(value++ & 0x0fff);
        }
        (halves++ % 2 == 0 ? HAL_ADC_ConvHalfCpltCallback : HAL_ADC_ConvCpltCallback)(&hadc1);
    }
}

int main(void) {
    board_open();
    huart2.gState = HAL_UART_STATE_READY;
    fisher_start_up(7);
    for (;;) {
        pass_time();
        fisher_poll();
        board_wait();
    }
}
