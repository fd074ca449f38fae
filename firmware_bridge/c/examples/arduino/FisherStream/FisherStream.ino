// Streams an analog input at 1 kHz over the board's serial port: copy fisher_frame.h and fisher_frame.c beside this file.
#include "fisher_frame.h"

static const uint8_t FIRMWARE[8] = {1};  // the start of a hash of your build
static const uint32_t PERIOD_US = 1000;
static const uint16_t SAMPLES = 16;  // a frame of them fits the 64 bytes that Serial.write takes without waiting

// Set `baud = 500000` in the gateway: it is exact at 16 MHz, where 921600 is 8 % off; native USB takes any.
static const uint32_t BAUD = 500000;

// What one count of analogRead is: most cores count to 1023 until they are told otherwise, an AVR has no more.
#if defined(ARDUINO_ARCH_AVR)
static const uint8_t ADC_BITS = 10;
static const uint64_t REFERENCE_MV = 5000;
#else
static const uint8_t ADC_BITS = 12;
static const uint64_t REFERENCE_MV = 3300;  // of your board: 5000 on an Uno R4
#endif
static const int32_t COUNT_E10 = (int32_t)((REFERENCE_MV * 10000000 + (1 << (ADC_BITS - 1))) >> ADC_BITS);

static fisher_sender sender;
static fisher_decoder decoder;
static uint8_t commands[64], frame[FISHER_DATA_FRAME_BYTES(SAMPLES, 2)];
static int16_t samples[SAMPLES];
static fisher_stream_info stream = {0, 0, FISHER_INT16, 1, 1000000, COUNT_E10, -10, 0, "V", "A0"};
static uint64_t sample_index;
static uint32_t next_us, first_us, boot, stats_us, dropped;
static uint16_t filled;

static void transmit(const uint8_t *bytes, size_t count) { Serial.write(bytes, count); }

static void say_hello() {
    uint8_t out[FISHER_HELLO_FRAME_BYTES(1)];
    fisher_hello hello = {1000000, boot, FIRMWARE, "Arduino", sizeof commands, 1, &stream};
    transmit(out, fisher_write_hello(&sender, out, sizeof out, &hello));
}

static void start() {
    if (stream.running) return;
    stream.running = 1;
    stream.run++;
    sample_index = 0;
    filled = 0;
    next_us = micros() + 5 * PERIOD_US;  // the HELLO leaves first
}

static void refuse(const fisher_message *command, uint8_t code, const char *why) {
    uint8_t out[96];
    transmit(out, fisher_write_error(&sender, out, sizeof out, code, command->sequence, why));
}

static void answer_ping(fisher_pong pong) {
    uint8_t out[40];
    pong.ticks_sent = micros();
    transmit(out, fisher_write_pong(&sender, out, sizeof out, &pong));
}

static void say_stats() {
    uint8_t out[48];
    fisher_stats stats = {dropped, 0, sender.sequence, decoder.damaged};
    transmit(out, fisher_write_stats(&sender, out, sizeof out, &stats));
}

static void carry_out(const fisher_message *command) {
    fisher_pong pong = {0, micros(), 0};
    fisher_error_code error = fisher_check_command(command, 1);
    if (error != FISHER_NO_ERROR) return refuse(command, error, "not a command of this board");
    if (fisher_parse_ping(command, &pong.token)) return answer_ping(pong);
    if (command->type == FISHER_SET_RATE) return refuse(command, FISHER_BAD_RATE, "rate 1000 Hz");
    if (command->type == FISHER_START) start();
    if (command->type == FISHER_STOP) stream.running = 0;
    say_hello();
}

static void listen() {
    while (Serial.available() > 0) {
        fisher_message command;
        bool found;
        uint8_t byte = (uint8_t)Serial.read();
        fisher_decode(&decoder, &byte, 1, &command, &found);
        if (found) carry_out(&command);
    }
}

static void send_samples() {
    fisher_writer writer;
    fisher_data data = {FISHER_INT16, 1, SAMPLES, first_us, sample_index};
    fisher_begin_data(&writer, &sender, frame, sizeof frame, 0, stream.run, &data);
    fisher_put_int16(&writer, samples, SAMPLES);
    transmit(frame, fisher_end(&writer));
    sample_index += SAMPLES;
    filled = 0;
}

void setup() {
    Serial.begin(BAUD);
#if !defined(ARDUINO_ARCH_AVR)
    analogReadResolution(ADC_BITS);
#endif
    fisher_decoder_init(&decoder, commands, sizeof commands);
    boot = micros() ^ ((uint32_t)analogRead(A1) << 20);  // the noise of an open input: another number after every boot
    say_hello();
}

void loop() {
    listen();
    if (!stream.running || (int32_t)(micros() - next_us) < 0) return;
    uint32_t missed = (micros() - next_us) / PERIOD_US;
    if (missed > 0) {  // the samples of a frame follow one another: what was begun goes, and the index says how much
        dropped += filled + missed;
        sample_index += filled + missed;
        next_us += missed * PERIOD_US;
        filled = 0;
    }
    if (filled == 0) first_us = next_us;
    samples[filled++] = (int16_t)analogRead(A0);
    next_us += PERIOD_US;
    if (filled == SAMPLES) send_samples();
    if (filled == SAMPLES / 2 && micros() - stats_us > 1000000) {  // while the buffer of Serial is empty
        stats_us = micros();
        say_stats();
    }
}
