/* Three axes of an accelerometer at 400 Hz over the UART that the alias `fisher-uart` names (USB CDC-ACM works too).
 *
 * The interrupt of the UART moves bytes between it and two rings; the main thread sleeps until a sample or a byte is there.
 * A frame takes 20 ms at 115 200 baud, eight periods: nothing waits for it.
 */
#include "fisher_frame.h"

#include <zephyr/device.h>
#include <zephyr/drivers/sensor.h>
#include <zephyr/drivers/uart.h>
#include <zephyr/kernel.h>
#include <zephyr/sys/ring_buffer.h>

enum { AXES = 3, SAMPLES = 16, RATE_HZ = 400 };

RING_BUF_DECLARE(incoming, 128);
RING_BUF_DECLARE(outgoing, 1024);
static K_SEM_DEFINE(work, 0, 1);

static const struct device *const uart = DEVICE_DT_GET(DT_ALIAS(fisher_uart));
static const struct device *const accelerometer = DEVICE_DT_GET(DT_ALIAS(accel0));
static const uint8_t firmware[8] = {1}; /* the start of a hash of your build */
static struct fisher_stream_info stream = {0, 0, FISHER_INT32, AXES, RATE_HZ * 1000, 1, -5, 0, "m/s^2", "accel0"};
static struct fisher_sender sender;
static struct fisher_decoder decoder;
static uint8_t commands[64];
static uint8_t frame_of_samples[FISHER_DATA_FRAME_BYTES(SAMPLES * AXES, 4)];
static int32_t samples[SAMPLES * AXES];
static uint32_t first_ticks, boot, frames_since_stats;
static uint64_t sample_index, dropped;
static size_t filled;

static void on_uart(const struct device *device, void *unused) {
    uint8_t byte, *bytes;
    (void)unused;
    while (uart_irq_update(device) > 0 && uart_irq_is_pending(device) > 0) {
        while (uart_irq_rx_ready(device) > 0 && uart_fifo_read(device, &byte, 1) == 1) {
            ring_buf_put(&incoming, &byte, 1);
            k_sem_give(&work);
        }
        if (uart_irq_tx_ready(device) > 0) {
            uint32_t waiting = ring_buf_get_claim(&outgoing, &bytes, sizeof frame_of_samples);
            int sent = waiting > 0 ? uart_fifo_fill(device, bytes, (int)waiting) : 0;
            ring_buf_get_finish(&outgoing, sent > 0 ? (uint32_t)sent : 0);
            if (waiting == 0) {
                uart_irq_tx_disable(device);
            }
        }
    }
}

static void on_period(struct k_timer *timer) {
    (void)timer;
    k_sem_give(&work);
}

/* Whether a frame finds room. One that does not is left out before it takes a number. */
static bool has_room(size_t bytes) {
    return ring_buf_space_get(&outgoing) >= bytes;
}

static void transmit(const uint8_t *bytes, size_t count) {
    ring_buf_put(&outgoing, bytes, (uint32_t)count);
    uart_irq_tx_enable(uart);
}

static void say_hello(void) {
    uint8_t frame[FISHER_HELLO_FRAME_BYTES(1)];
    const struct fisher_hello hello = {sys_clock_hw_cycles_per_sec(), boot, firmware, "Zephyr",
                                       sizeof commands, 1, &stream};
    if (has_room(sizeof frame)) {
        transmit(frame, fisher_write_hello(&sender, frame, sizeof frame, &hello));
    }
}

static void start(void) {
    if (stream.running == 0) {
        stream.running = 1;
        stream.run++;
        sample_index = 0;
        filled = 0;
    }
}

static void refuse(const struct fisher_message *command, uint8_t code, const char *why) {
    uint8_t frame[96];
    if (has_room(sizeof frame)) {
        transmit(frame, fisher_write_error(&sender, frame, sizeof frame, code, command->sequence, why));
    }
}

static void answer_ping(struct fisher_pong pong) {
    uint8_t frame[40];
    pong.ticks_sent = k_cycle_get_32();
    if (has_room(sizeof frame)) {
        transmit(frame, fisher_write_pong(&sender, frame, sizeof frame, &pong));
    }
}

static void say_stats(void) {
    uint8_t frame[48];
    const struct fisher_stats stats = {dropped, 0, sender.sequence, decoder.damaged};
    if (has_room(sizeof frame)) {
        transmit(frame, fisher_write_stats(&sender, frame, sizeof frame, &stats));
    }
}

static void carry_out(const struct fisher_message *command) {
    struct fisher_pong pong = {0, k_cycle_get_32(), 0};
    enum fisher_error_code error = fisher_check_command(command, 1);
    if (error != FISHER_NO_ERROR) {
        refuse(command, (uint8_t)error, "not a command of this board");
    } else if (fisher_parse_ping(command, &pong.token)) {
        answer_ping(pong);
    } else if (command->type == FISHER_SET_RATE) {
        refuse(command, FISHER_BAD_RATE, "rate 400 Hz");
    } else {
        if (command->type == FISHER_START) {
            start();
        } else if (command->type == FISHER_STOP) {
            stream.running = 0;
        }
        say_hello();
    }
}

static void listen(void) {
    struct fisher_message command;
    uint8_t byte;
    bool found;
    while (ring_buf_get(&incoming, &byte, 1) == 1) {
        fisher_decode(&decoder, &byte, 1, &command, &found);
        if (found) {
            carry_out(&command);
        }
    }
}

/* The samples of a frame follow one another: what was begun is left out with the missing, and the index says how many. */
static void skip(uint32_t missing) {
    dropped += filled + missing;
    sample_index += filled + missing;
    filled = 0;
}

/* A value in hundred-thousandths: 2189 g are no more than 32 bits. */
static int32_t scaled(const struct sensor_value *value) {
    return (int32_t)(((int64_t)value->val1 * 1000000 + value->val2) / 10);
}

static void take_sample(void) {
    struct sensor_value value[AXES];
    if (sensor_sample_fetch(accelerometer) != 0 || sensor_channel_get(accelerometer, SENSOR_CHAN_ACCEL_XYZ, value) != 0) {
        skip(1);
        return;
    }
    if (filled == 0) {
        first_ticks = k_cycle_get_32();
    }
    for (size_t axis = 0; axis < AXES; axis++) {
        samples[filled * AXES + axis] = scaled(&value[axis]);
    }
    filled++;
}

static void send_samples(void) {
    const struct fisher_data data = {FISHER_INT32, AXES, SAMPLES, first_ticks, sample_index};
    struct fisher_writer writer;
    if (!has_room(sizeof frame_of_samples)) {
        skip(0);
        return;
    }
    fisher_begin_data(&writer, &sender, frame_of_samples, sizeof frame_of_samples, 0, stream.run, &data);
    fisher_put_int32(&writer, samples, SAMPLES * AXES);
    transmit(frame_of_samples, fisher_end(&writer));
    sample_index += SAMPLES;
    filled = 0;
}

/* Take the sample of this period; `expired` periods have passed since the last one. */
static void work_on_period(uint32_t expired) {
    if (stream.running == 0 || expired == 0) {
        return;
    }
    if (expired > 1) { /* periods in which nothing was taken */
        skip(expired - 1);
    }
    take_sample();
    if (filled == SAMPLES) {
        send_samples();
        if (++frames_since_stats == RATE_HZ / SAMPLES) {
            frames_since_stats = 0;
            say_stats();
        }
    }
}

int main(void) {
    struct k_timer timer;
    uart_irq_callback_set(uart, on_uart);
    uart_irq_rx_enable(uart);
    k_timer_init(&timer, on_period, NULL);
    k_timer_start(&timer, K_USEC(1000000 / RATE_HZ), K_USEC(1000000 / RATE_HZ));
    fisher_decoder_init(&decoder, commands, sizeof commands);
    boot = k_cycle_get_32(); /* take a random number where there is a source of entropy */
    say_hello();
    for (;;) {
        k_sem_take(&work, K_FOREVER);
        listen();
        work_on_period(k_timer_status_get(&timer));
    }
}
