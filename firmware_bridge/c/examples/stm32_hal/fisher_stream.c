/* Three channels of an ADC through circular DMA, sent over a UART by DMA, for any STM32 with the HAL.
 *
 * Set up in CubeMX: a timer that triggers the ADC at 12.8 kHz, its DMA circular over `raw`, the UART with DMA for sending
 * and an interrupt for each byte received, a 1 MHz timer of 32 bits (TIM2). Call fisher_start_up once and fisher_poll in
 * the main loop.
 */
#include "fisher_frame.h"
#include "stm32_hal.h"

#include <string.h>

enum { CHANNELS = 3, HALF = 128, FRAME = FISHER_DATA_FRAME_BYTES(HALF * CHANNELS, 2) };

extern ADC_HandleTypeDef hadc1;
extern UART_HandleTypeDef huart2;
extern TIM_HandleTypeDef htim2;

static const uint8_t firmware[8] = {1}; /* the start of a hash of your build */
static struct fisher_stream_info stream = {0, 0, FISHER_INT16, CHANNELS, 12800000, 805664, -9, 0, "V", "ADC1 0-2"};
static struct fisher_sender sender;
static struct fisher_decoder decoder;
static uint8_t commands[64], received[128], frames[2][FRAME], answer[FISHER_HELLO_FRAME_BYTES(1)];
static volatile uint8_t received_first, received_last;
static uint16_t raw[2 * HALF * CHANNELS];
static volatile uint32_t half_ticks[2], halves_taken;
static uint32_t halves_sent, boot;
static uint64_t dropped;
static uint8_t byte_received, next_frame;

/* Interrupts only note that a half is full, and when it began. */
static void half_is_full(unsigned half) {
    half_ticks[half] = __HAL_TIM_GET_COUNTER(&htim2) - HALF * 1000000u / 12800u;
    halves_taken++;
}

void HAL_ADC_ConvHalfCpltCallback(ADC_HandleTypeDef *adc) {
    (void)adc;
    half_is_full(0);
}

void HAL_ADC_ConvCpltCallback(ADC_HandleTypeDef *adc) {
    (void)adc;
    half_is_full(1);
}

void HAL_UART_RxCpltCallback(UART_HandleTypeDef *uart) {
    received[received_last % sizeof received] = byte_received;
    received_last++;
    HAL_UART_Receive_IT(uart, &byte_received, 1);
}

/* Frames leave one after the other: the buffer of the one before is free when the UART is. */
static void transmit(uint8_t *bytes, size_t count) {
    while (huart2.gState != HAL_UART_STATE_READY) {
    }
    HAL_UART_Transmit_DMA(&huart2, bytes, (uint16_t)count);
}

static void say_hello(void) {
    const struct fisher_hello hello = {1000000, boot, firmware, "STM32", sizeof commands, 1, &stream};
    transmit(answer, fisher_write_hello(&sender, answer, sizeof answer, &hello));
}

static void start(void) {
    if (stream.running == 0) {
        stream.running = 1;
        stream.run++;
        halves_taken = halves_sent = 0;
        HAL_ADC_Start_DMA(&hadc1, (uint32_t *)(void *)raw, 2 * HALF * CHANNELS);
    }
}

static void stop(void) {
    HAL_ADC_Stop_DMA(&hadc1);
    stream.running = 0;
}

static void refuse(const struct fisher_message *command, uint8_t code, const char *why) {
    transmit(answer, fisher_write_error(&sender, answer, sizeof answer, code, command->sequence, why));
}

static void answer_ping(struct fisher_pong pong) {
    pong.ticks_sent = __HAL_TIM_GET_COUNTER(&htim2);
    transmit(answer, fisher_write_pong(&sender, answer, sizeof answer, &pong));
}

static void carry_out(const struct fisher_message *command) {
    struct fisher_pong pong = {0, __HAL_TIM_GET_COUNTER(&htim2), 0};
    enum fisher_error_code error = fisher_check_command(command, 1);
    while (huart2.gState != HAL_UART_STATE_READY) { /* `answer` may still be on its way */
    }
    if (error != FISHER_NO_ERROR) {
        refuse(command, (uint8_t)error, "not a command of this board");
    } else if (fisher_parse_ping(command, &pong.token)) {
        answer_ping(pong);
    } else if (command->type == FISHER_SET_RATE) {
        refuse(command, FISHER_BAD_RATE, "rate 12800 Hz");
    } else {
        if (command->type == FISHER_START) {
            start();
        } else if (command->type == FISHER_STOP) {
            stop();
        }
        say_hello();
    }
}

/* Send the oldest half that has not been sent; one that the DMA has begun to overwrite is left out of the index. */
static void send_half(void) {
    unsigned half = halves_sent % 2;
    const struct fisher_data data = {FISHER_INT16, CHANNELS, HALF, half_ticks[half], (uint64_t)halves_sent * HALF};
    struct fisher_writer writer;
    int16_t values[HALF * CHANNELS];
    memcpy(values, &raw[half * HALF * CHANNELS], sizeof values);
    if (halves_taken - halves_sent > 1) {
        halves_sent++;
        dropped += HALF;
        return;
    }
    fisher_begin_data(&writer, &sender, frames[next_frame], FRAME, 0, stream.run, &data);
    fisher_put_int16(&writer, values, HALF * CHANNELS);
    transmit(frames[next_frame], fisher_end(&writer));
    next_frame ^= 1;
    halves_sent++;
}

static void say_stats(void) {
    const struct fisher_stats stats = {dropped, 0, sender.sequence, decoder.damaged};
    while (huart2.gState != HAL_UART_STATE_READY) {
    }
    transmit(answer, fisher_write_stats(&sender, answer, sizeof answer, &stats));
}

void fisher_start_up(uint32_t boot_number) {
    boot = boot_number;
    fisher_decoder_init(&decoder, commands, sizeof commands);
    HAL_UART_Receive_IT(&huart2, &byte_received, 1);
    say_hello();
}

void fisher_poll(void) {
    struct fisher_message command;
    bool found;
    while (received_first != received_last) {
        uint8_t byte = received[received_first++ % sizeof received];
        fisher_decode(&decoder, &byte, 1, &command, &found);
        if (found) {
            carry_out(&command);
        }
    }
    while (stream.running != 0 && halves_sent != halves_taken) {
        send_half();
        if (halves_sent % 100 == 0) {
            say_stats();
        }
    }
}
