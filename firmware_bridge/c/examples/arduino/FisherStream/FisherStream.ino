// Streams an analog input at 1 kHz over the board's serial port: copy fisher_frame.h and fisher_frame.c beside this file.
#include "fisher_frame.h"

static const uint8_t FIRMWARE[8] = {1};  // the start of a hash of your build
static const uint32_t PERIOD_US = 1000;
static const uint16_t SAMPLES = 32;

static fisher_sender sender;
static fisher_decoder decoder;
static uint8_t commands[64], frame[FISHER_DATA_FRAME_BYTES(SAMPLES, 2)];
static int16_t samples[SAMPLES];
static fisher_stream_info stream = {0, 0, FISHER_INT16, 1, 1000000, 805664, -9, 0, "V", "A0"};
static uint64_t sample_index;
static uint32_t next_us, first_us, late;
static uint16_t filled;

static void transmit(const uint8_t *bytes, size_t count) { Serial.write(bytes, count); }

static void say_hello() {
    uint8_t out[FISHER_HELLO_FRAME_BYTES(1)];
    fisher_hello hello = {1000000, (uint32_t)random(0x7FFFFFFF) + 1u, FIRMWARE, "Arduino", sizeof commands, 1, &stream};
    transmit(out, fisher_write_hello(&sender, out, sizeof out, &hello));
}

static void start() {
    if (stream.running) return;
    stream.running = 1;
    stream.run++;
    sample_index = 0;
    filled = 0;
    next_us = micros();
}

static void carry_out(const fisher_message *command) {
    uint8_t out[96];
    fisher_pong pong = {0, micros(), 0};
    if (command->type == FISHER_START) start();
    if (command->type == FISHER_STOP) stream.running = 0;
    if (fisher_parse_ping(command, &pong.token)) {
        pong.ticks_sent = micros();
        transmit(out, fisher_write_pong(&sender, out, sizeof out, &pong));
    } else if (command->type == FISHER_SET_RATE) {
        transmit(out, fisher_write_error(&sender, out, sizeof out, FISHER_BAD_RATE, command->sequence, "rate 1000 Hz"));
    } else {
        say_hello();
    }
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
    Serial.begin(921600);
    fisher_decoder_init(&decoder, commands, sizeof commands);
    say_hello();
}

void loop() {
    listen();
    if (!stream.running || (int32_t)(micros() - next_us) < 0) return;
    if (filled == 0) first_us = micros();
    samples[filled++] = (int16_t)analogRead(A0);
    next_us += PERIOD_US;
    if ((int32_t)(micros() - next_us) > (int32_t)PERIOD_US) {  // samples were missed: say so in the index
        uint32_t missed = (micros() - next_us) / PERIOD_US;
        late += missed;
        next_us += missed * PERIOD_US;
        filled = 0;
        sample_index += missed + 1;
    }
    if (filled == SAMPLES) send_samples();
}
