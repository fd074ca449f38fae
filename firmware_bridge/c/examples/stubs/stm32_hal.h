/* What the STM32 example uses of the HAL, so that any compiler can check it: use the HAL header of your part instead. */
#ifndef STM32_HAL_STUB_H
#define STM32_HAL_STUB_H

#include <stdint.h>

typedef struct {
    int state;
} ADC_HandleTypeDef;
typedef struct {
    volatile int gState;
} UART_HandleTypeDef;
typedef struct {
    volatile uint32_t counter;
} TIM_HandleTypeDef;

enum { HAL_UART_STATE_READY = 0x20 };

#define __HAL_TIM_GET_COUNTER(timer) ((timer)->counter)

int HAL_ADC_Start_DMA(ADC_HandleTypeDef *adc, uint32_t *data, uint32_t length);
int HAL_ADC_Stop_DMA(ADC_HandleTypeDef *adc);
int HAL_UART_Transmit_DMA(UART_HandleTypeDef *uart, const uint8_t *data, uint16_t size);
int HAL_UART_Receive_IT(UART_HandleTypeDef *uart, uint8_t *data, uint16_t size);
void HAL_ADC_ConvHalfCpltCallback(ADC_HandleTypeDef *adc);
void HAL_ADC_ConvCpltCallback(ADC_HandleTypeDef *adc);
void HAL_UART_RxCpltCallback(UART_HandleTypeDef *uart);
void fisher_start_up(uint32_t boot_number);
void fisher_poll(void);

#endif
