/* What STM32 programs use of the HAL, so that any compiler can check them: use the HAL header of your part instead. */
#ifndef STM32_HAL_STUB_H
#define STM32_HAL_STUB_H

#include <stdint.h>

typedef enum { HAL_OK = 0, HAL_ERROR = 1, HAL_BUSY = 2 } HAL_StatusTypeDef;
typedef struct {
    uint32_t remaining;
} DMA_HandleTypeDef;
typedef struct {
    int state;
} ADC_HandleTypeDef;
typedef struct {
    volatile uint32_t gState;
    volatile uint32_t RxState;
    DMA_HandleTypeDef *hdmarx;
} UART_HandleTypeDef;
typedef struct {
    int state;
} TIM_HandleTypeDef;

enum { HAL_UART_STATE_READY = 0x20, HAL_UART_STATE_BUSY_TX = 0x21, HAL_UART_STATE_BUSY_RX = 0x22 };

#define __ALIGNED(bytes) __attribute__((aligned(bytes)))
#define __HAL_TIM_GET_COUNTER(timer) stub_timer_counter(timer)
#define __HAL_DMA_GET_COUNTER(dma) stub_dma_counter(dma)

uint32_t stub_timer_counter(const TIM_HandleTypeDef *timer);
uint32_t stub_dma_counter(const DMA_HandleTypeDef *dma);

HAL_StatusTypeDef HAL_ADC_Start_DMA(ADC_HandleTypeDef *adc, uint32_t *data, uint32_t length);
HAL_StatusTypeDef HAL_ADC_Stop_DMA(ADC_HandleTypeDef *adc);
HAL_StatusTypeDef HAL_UART_Transmit_DMA(UART_HandleTypeDef *uart, const uint8_t *data, uint16_t size);
HAL_StatusTypeDef HAL_UART_Receive_DMA(UART_HandleTypeDef *uart, uint8_t *data, uint16_t size);
HAL_StatusTypeDef HAL_UART_Receive_IT(UART_HandleTypeDef *uart, uint8_t *data, uint16_t size);
void HAL_ADC_ConvHalfCpltCallback(ADC_HandleTypeDef *adc);
void HAL_ADC_ConvCpltCallback(ADC_HandleTypeDef *adc);
void HAL_UART_RxCpltCallback(UART_HandleTypeDef *uart);
void HAL_UART_TxCpltCallback(UART_HandleTypeDef *uart);
void HAL_UART_ErrorCallback(UART_HandleTypeDef *uart);

#if defined(__DCACHE_PRESENT) && __DCACHE_PRESENT == 1U
void SCB_CleanDCache_by_Addr(volatile void *address, int32_t bytes);
void SCB_InvalidateDCache_by_Addr(volatile void *address, int32_t bytes);
#endif

void fisher_start_up(uint32_t boot_number);
void fisher_poll(void);

#endif
