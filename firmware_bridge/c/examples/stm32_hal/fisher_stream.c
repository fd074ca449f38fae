/* Three channels of an ADC through circular DMA, sent over a UART by DMA, for any STM32 with the HAL.
 *
 * Set up in CubeMX: a timer that triggers the ADC at 12.8 kHz, its DMA circular over `raw`, the UART at 2 000 000 baud (921 600
 * carries 3 x 12 kHz) with its global interrupt and DMA both ways, circular for receiving, a 1 MHz timer of 32 bits (TIM2).
 * Call fisher_start_up once and fisher_poll in the main loop, every 5 ms at least. Nothing in here waits.
 *
 * A Cortex-M7 (F7, H7) sees memory through its data cache: the buffers of the DMA are whole lines of it, cleaned before the
 * DMA reads and invalidated before the processor does. On an H7 place them in a RAM that the DMA reaches, which DTCM is not.
 */
#include "fisher_frame.h"
#include "stm32_hal.h"

#include <string.h>

enum { CHANNELS = 3, HALF = 128, FRAME = FISHER_DATA_FRAME_BYTES(HALF * CHANNELS, 2) };
enum { LINE = 32, INCOMING = 256, OUTGOING = 2048 }; /* bytes: of the cache's lines, of the rings */

extern ADC_HandleTypeDef hadc1;
extern UART_HandleTypeDef huart2;
extern TIM_HandleTypeDef htim2;

static const uint8_t firmware[8] = {1}; /* the start of a hash of your build */
static struct fisher_stream_info stream = {0, 0, FISHER_INT16, CHANNELS, 12800000, 805664, -9, 0, "V", "ADC1 0-2"};
static struct fisher_sender sender;
static struct fisher_decoder decoder;
static uint8_t commands[64], frame[FRAME];
static uint8_t incoming[INCOMING] __ALIGNED(LINE), outgoing[OUTGOING] __ALIGNED(LINE);
static uint16_t raw[2 * HALF * CHANNELS] __ALIGNED(LINE); /* a half of it is whole lines as well */
static uint32_t incoming_taken;
static volatile uint32_t outgoing_put, outgoing_taken, outgoing_under_way;
static volatile uint8_t reception_ended;
static volatile uint32_t half_ticks[2], halves_taken;
static uint32_t halves_sent, boot;
static uint64_t dropped;

#if defined(__DCACHE_PRESENT) && __DCACHE_PRESENT == 1U

static void before_dma_reads(uint8_t *buffer, uint32_t first, uint32_t count) {
    uint32_t line = first - first % LINE, end = (first + count + LINE - 1) / LINE * LINE;
    SCB_CleanDCache_by_Addr((void *)(buffer + line), (int32_t)(end - line));
}

static void after_dma_wrote(void *buffer, uint32_t bytes) {
    SCB_InvalidateDCache_by_Addr(buffer, (int32_t)bytes);
}

#else

static void before_dma_reads(uint8_t *buffer, uint32_t first, uint32_t count) {
    (void)buffer, (void)first, (void)count;
}

static void after_dma_wrote(void *buffer, uint32_t bytes) {
    (void)buffer, (void)bytes;
}

#endif

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

/* Any error of the line (an overrun, noise, a break) ends reception by DMA: fisher_poll begins it again. */
void HAL_UART_ErrorCallback(UART_HandleTypeDef *uart) {
    (void)uart;
    reception_ended = 1;
}

static void receive(void) {
    reception_ended = 0;
    if (HAL_UART_Receive_DMA(&huart2, incoming, INCOMING) == HAL_OK) {
        incoming_taken = 0;
    }
}

/* Send what waits in the ring, in one piece: called while no transfer is under way. */
static void send_next(void) {
    uint32_t first = outgoing_taken % OUTGOING, waiting = outgoing_put - outgoing_taken;
    uint32_t count = waiting < OUTGOING - first ? waiting : OUTGOING - first;
    outgoing_under_way = count;
    if (count > 0) {
        before_dma_reads(outgoing, first, count);
        if (HAL_UART_Transmit_DMA(&huart2, outgoing + first, (uint16_t)count) != HAL_OK) {
            outgoing_under_way = 0; /* fisher_poll tries again */
        }
    }
}

void HAL_UART_TxCpltCallback(UART_HandleTypeDef *uart) {
    (void)uart;
    outgoing_taken += outgoing_under_way;
    send_next();
}

/* Whether a frame finds room. One that does not is left out before it takes a number. */
static bool has_room(uint32_t bytes) {
    return OUTGOING - (outgoing_put - outgoing_taken) >= bytes;
}

static void transmit(const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        outgoing[(outgoing_put + i) % OUTGOING] = bytes[i];
    }
    outgoing_put += (uint32_t)count;
    if (outgoing_under_way == 0) {
        send_next();
    }
}

static void say_hello(void) {
    const struct fisher_hello hello = {1000000, boot, firmware, "STM32", sizeof commands, 1, &stream};
    uint8_t answer[FISHER_HELLO_FRAME_BYTES(1)];
    if (has_room(sizeof answer)) {
        transmit(answer, fisher_write_hello(&sender, answer, sizeof answer, &hello));
    }
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
    uint8_t answer[96];
    if (has_room(sizeof answer)) {
        transmit(answer, fisher_write_error(&sender, answer, sizeof answer, code, command->sequence, why));
    }
}

static void answer_ping(struct fisher_pong pong) {
    uint8_t answer[40];
    pong.ticks_sent = __HAL_TIM_GET_COUNTER(&htim2);
    if (has_room(sizeof answer)) {
        transmit(answer, fisher_write_pong(&sender, answer, sizeof answer, &pong));
    }
}

static void carry_out(const struct fisher_message *command) {
    struct fisher_pong pong = {0, __HAL_TIM_GET_COUNTER(&htim2), 0};
    enum fisher_error_code error = fisher_check_command(command, 1);
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

/* Send the oldest half that has not been sent. One that the DMA has begun to overwrite, or that finds no room, is left out
 * of the index. */
static void send_half(void) {
    unsigned half = halves_sent % 2;
    const struct fisher_data data = {FISHER_INT16, CHANNELS, HALF, half_ticks[half], (uint64_t)halves_sent * HALF};
    struct fisher_writer writer;
    int16_t values[HALF * CHANNELS];
    after_dma_wrote(&raw[half * HALF * CHANNELS], sizeof values);
    memcpy(values, &raw[half * HALF * CHANNELS], sizeof values);
    halves_sent++;
    if (halves_taken - halves_sent > 0 || !has_room(FRAME)) {
        dropped += HALF;
        return;
    }
    fisher_begin_data(&writer, &sender, frame, FRAME, 0, stream.run, &data);
    fisher_put_int16(&writer, values, HALF * CHANNELS);
    transmit(frame, fisher_end(&writer));
}

static void say_stats(void) {
    const struct fisher_stats stats = {dropped, 0, sender.sequence, decoder.damaged};
    uint8_t answer[48];
    if (has_room(sizeof answer)) {
        transmit(answer, fisher_write_stats(&sender, answer, sizeof answer, &stats));
    }
}

static void listen(void) {
    struct fisher_message command;
    bool found;
    uint32_t end;
    if (reception_ended != 0) {
        receive();
    }
    end = INCOMING - __HAL_DMA_GET_COUNTER(huart2.hdmarx);
    after_dma_wrote(incoming, INCOMING);
    while (incoming_taken != end % INCOMING) {
        fisher_decode(&decoder, &incoming[incoming_taken], 1, &command, &found);
        incoming_taken = (incoming_taken + 1) % INCOMING;
        if (found) {
            carry_out(&command);
        }
    }
}

/* Go on where a transfer did not begin, or ended with an error instead of HAL_UART_TxCpltCallback. */
static void go_on_sending(void) {
    if (huart2.gState == HAL_UART_STATE_READY) {
        outgoing_taken += outgoing_under_way;
        send_next();
    }
}

void fisher_start_up(uint32_t boot_number) {
    boot = boot_number;
    fisher_decoder_init(&decoder, commands, sizeof commands);
    receive();
    say_hello();
}

void fisher_poll(void) {
    listen();
    go_on_sending();
    while (stream.running != 0 && halves_sent != halves_taken) {
        send_half();
        if (halves_sent % 100 == 0) {
            say_stats();
        }
    }
}
