/* Tests of the library: golden frames, pieces of any size, limits, rubbish. Prints what fails and ends with 1. */
#include "fisher_frame.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct golden_frame {
    const char *name;
    const uint8_t *frame;
    size_t frame_bytes;
    const uint8_t *message;
    size_t message_bytes;
    uint8_t type, stream, run;
    uint32_t sequence;
};

struct golden_stream {
    const char *name;
    const uint8_t *bytes;
    size_t count;
    const size_t *found;
    size_t found_count;
    uint32_t damaged;
};

#include "vectors.inc"

enum { FRAMES = sizeof golden_frames / sizeof *golden_frames, STREAMS = sizeof golden_streams / sizeof *golden_streams };

static int failures, checks;

#define CHECK(condition, what)                                                            \
    do {                                                                                  \
        checks++;                                                                         \
        if (!(condition)) {                                                               \
            failures++;                                                                   \
            fprintf(stderr, "FAILED line %d: %s (%s)\n", __LINE__, #condition, (what));   \
        }                                                                                 \
    } while (0)

static const uint8_t *body_of(const struct golden_frame *golden) {
    return golden->message + FISHER_HEADER_BYTES;
}

static size_t body_bytes_of(const struct golden_frame *golden) {
    return golden->message_bytes - FISHER_MIN_MESSAGE;
}

/* Write a golden frame in pieces of `piece` bytes into a buffer of exactly `size`. */
static size_t write_golden(const struct golden_frame *golden, uint8_t *frame, size_t size, size_t piece) {
    struct fisher_sender sender = {.sequence = golden->sequence};
    struct fisher_writer writer;
    size_t length;
    fisher_begin(&writer, &sender, frame, size, golden->type, golden->stream, golden->run);
    for (size_t done = 0; done < body_bytes_of(golden); done += piece) {
        size_t left = body_bytes_of(golden) - done;
        fisher_put(&writer, body_of(golden) + done, left < piece ? left : piece);
    }
    length = fisher_end(&writer);
    CHECK(sender.sequence == golden->sequence + (length > 0), golden->name);
    return length;
}

static bool same(const struct fisher_message *message, const struct golden_frame *golden) {
    return message->type == golden->type && message->stream == golden->stream && message->run == golden->run &&
           message->sequence == golden->sequence && message->body_bytes == body_bytes_of(golden) &&
           memcmp(message->body, body_of(golden), message->body_bytes) == 0;
}

static void test_golden_frames_are_written(void) {
    for (size_t i = 0; i < FRAMES; i++) {
        const struct golden_frame *golden = &golden_frames[i];
        for (size_t piece = 1; piece < 300; piece += 61) {
            uint8_t *frame = malloc(golden->frame_bytes); /* of exactly the size, so that the sanitizer sees a byte more */
            CHECK(write_golden(golden, frame, golden->frame_bytes, piece) == golden->frame_bytes, golden->name);
            CHECK(memcmp(frame, golden->frame, golden->frame_bytes) == 0, golden->name);
            free(frame);
        }
    }
}

static void test_buffer_that_is_too_small_fails(void) {
    for (size_t i = 0; i < FRAMES; i++) {
        for (size_t size = 0; size < golden_frames[i].frame_bytes; size += 1 + size / 40) {
            uint8_t *frame = malloc(size + (size == 0));
            CHECK(write_golden(&golden_frames[i], frame, size, 7) == 0, golden_frames[i].name);
            free(frame);
        }
    }
}

static void test_golden_frames_are_found(void) {
    uint8_t buffer[FISHER_MAX_MESSAGE];
    struct fisher_decoder decoder;
    struct fisher_message message;
    bool found;
    fisher_decoder_init(&decoder, buffer, sizeof buffer);
    for (size_t i = 0; i < FRAMES; i++) {
        const struct golden_frame *golden = &golden_frames[i];
        CHECK(fisher_decode(&decoder, golden->frame, golden->frame_bytes, &message, &found) == golden->frame_bytes,
              golden->name);
        CHECK(found && same(&message, golden), golden->name);
        CHECK(fisher_body_is_valid(&message), golden->name);
    }
    CHECK(decoder.damaged == 0, "golden frames");
}

/* Feed bytes in pieces of `piece` (0: of any length) and compare what is found with what should be. */
static void check_stream(const struct golden_stream *golden, size_t piece) {
    uint8_t buffer[FISHER_MAX_MESSAGE];
    struct fisher_decoder decoder;
    struct fisher_message message;
    size_t done = 0, count = 0;
    bool found;
    fisher_decoder_init(&decoder, buffer, sizeof buffer);
    while (done < golden->count) {
        size_t next = piece > 0 ? piece : (size_t)(1 + rand() % 50);
        next = next < golden->count - done ? next : golden->count - done;
        done += fisher_decode(&decoder, golden->bytes + done, next, &message, &found);
        if (found) {
            CHECK(count < golden->found_count && same(&message, &golden_frames[golden->found[count]]), golden->name);
            count++;
        }
    }
    CHECK(count == golden->found_count, golden->name);
    CHECK(decoder.damaged == golden->damaged, golden->name);
}

static void test_golden_streams_give_their_frames(void) {
    for (size_t i = 0; i < STREAMS; i++) {
        check_stream(&golden_streams[i], 1);
        check_stream(&golden_streams[i], 100000);
        for (int round = 0; round < 50; round++) {
            check_stream(&golden_streams[i], 0);
        }
    }
}

static void test_samples_of_every_format_are_the_golden_ones(void) {
    static const int16_t small[] = {0, 1, -1, 256, -32768, 32767};
    static const int32_t middle[] = {-8388608, 8388607, 0, 65536}, large[] = {-2147483647 - 1, 2147483647, 16909060, 0};
    static const uint32_t bits[] = {0x3F800000u, 0xBF000000u, 0x00000001u, 0x40490FDBu};
    float real[4];
    const struct fisher_data data[] = {{1, 3, 2, 999, 500}, {2, 1, 4, 4294967295u, (uint64_t)1 << 40}, {3, 2, 2, 1, ~(uint64_t)0},
                                       {4, 1, 4, 7, 9}};
    memcpy(real, bits, sizeof real);
    for (size_t i = 0; i < 4; i++) {
        const struct golden_frame *golden = &golden_frames[3 + i];
        uint8_t frame[FISHER_DATA_FRAME_BYTES(6, 4)];
        struct fisher_sender sender = {.sequence = golden->sequence};
        struct fisher_writer writer;
        fisher_begin_data(&writer, &sender, frame, sizeof frame, golden->stream, golden->run, &data[i]);
        if (i == 0) {
            fisher_put_int16(&writer, small, 2);
            fisher_put_int16(&writer, small + 2, 4);
        } else if (i == 1) {
            fisher_put_int24(&writer, middle, 4);
        } else if (i == 2) {
            fisher_put_int32(&writer, large, 4);
        } else {
            fisher_put_float32(&writer, real, 4);
        }
        CHECK(fisher_end(&writer) == golden->frame_bytes, golden->name);
        CHECK(memcmp(frame, golden->frame, golden->frame_bytes) == 0, golden->name);
    }
}

static void test_messages_of_a_device_are_the_golden_ones(void) {
    static const uint8_t firmware[8] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0xff};
    const struct fisher_stream_info streams[] = {
        {0, 7, FISHER_INT16, 3, 3200000, 61, -6, 1, "g", "LIS3DH #12"},
        {15, 0, FISHER_INT24, 1, 51200000, -1000000, -128, 0, "A rms..", "cccccccccccccccccccccccc"}};
    const struct fisher_hello hello = {1000000, 3, firmware, "bench", 2048, 2, streams};
    const struct fisher_pong pong = {~(uint64_t)0 - 1, 10, 260};
    const struct fisher_stats stats = {(uint64_t)1 << 33, 2, 4000000000u, 0};
    uint8_t frame[FISHER_HELLO_FRAME_BYTES(2)];
    struct fisher_sender sender = {0};
    CHECK(fisher_write_hello(&sender, frame, sizeof frame, &hello) == golden_frames[0].frame_bytes, "HELLO");
    CHECK(memcmp(frame, golden_frames[0].frame, golden_frames[0].frame_bytes) == 0, "HELLO");
    sender.sequence = 9;
    CHECK(fisher_write_pong(&sender, frame, sizeof frame, &pong) == golden_frames[10].frame_bytes, "PONG");
    CHECK(memcmp(frame, golden_frames[10].frame, golden_frames[10].frame_bytes) == 0, "PONG");
    CHECK(fisher_write_stats(&sender, frame, sizeof frame, &stats) == golden_frames[11].frame_bytes, "STATS");
    CHECK(memcmp(frame, golden_frames[11].frame, golden_frames[11].frame_bytes) == 0, "STATS");
    CHECK(fisher_write_error(&sender, frame, sizeof frame, FISHER_BAD_RATE, 17, "rate 1600, 3200 or 6400 Hz") ==
              golden_frames[12].frame_bytes, "ERROR");
    CHECK(memcmp(frame, golden_frames[12].frame, golden_frames[12].frame_bytes) == 0, "ERROR");
    CHECK(sender.sequence == 12, "sequence");
}

static void test_commands_are_read(void) {
    uint8_t buffer[20];
    struct fisher_decoder decoder;
    struct fisher_message message;
    uint32_t rate_mhz = 0;
    uint64_t token = 0;
    bool found;
    fisher_decoder_init(&decoder, buffer, sizeof buffer);
    for (size_t i = 13; i < FRAMES; i++) {
        fisher_decode(&decoder, golden_frames[i].frame, golden_frames[i].frame_bytes, &message, &found);
        CHECK(found && same(&message, &golden_frames[i]), golden_frames[i].name);
        CHECK(fisher_parse_rate(&message, &rate_mhz) == (message.type == FISHER_SET_RATE), "rate");
        CHECK(fisher_parse_ping(&message, &token) == (message.type == FISHER_PING), "ping");
    }
    CHECK(rate_mhz == 6400000, "rate");
    CHECK(token == 72623859790382856u, "token");
    fisher_decode(&decoder, golden_frames[0].frame, golden_frames[0].frame_bytes, &message, &found);
    CHECK(!found && decoder.damaged == 1, "a message longer than the buffer");
    fisher_decode(&decoder, golden_frames[17].frame, golden_frames[17].frame_bytes, &message, &found);
    CHECK(found, "the next one");
}

static void test_commands_are_checked(void) {
    static const uint8_t body[8] = {0};
    const struct {
        uint8_t type, stream;
        size_t bytes;
        enum fisher_error_code error;
    } cases[] = {
        {FISHER_WHO, 0, 0, FISHER_NO_ERROR},       {FISHER_WHO, 9, 0, FISHER_NO_ERROR},
        {FISHER_WHO, 0, 1, FISHER_BAD_BODY},       {FISHER_START, 1, 0, FISHER_NO_ERROR},
        {FISHER_START, 2, 0, FISHER_UNKNOWN_STREAM}, {FISHER_STOP, 255, 0, FISHER_NO_ERROR},
        {FISHER_SET_RATE, 0, 4, FISHER_NO_ERROR},  {FISHER_SET_RATE, 255, 4, FISHER_UNKNOWN_STREAM},
        {FISHER_SET_RATE, 0, 3, FISHER_BAD_BODY},  {FISHER_PING, 0, 8, FISHER_NO_ERROR},
        {FISHER_PING + 1, 0, 0, FISHER_UNKNOWN_TYPE}, {FISHER_DATA, 0, 0, FISHER_UNKNOWN_TYPE}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct fisher_message message = {cases[i].type, cases[i].stream, 0, 5, body, cases[i].bytes};
        CHECK(fisher_check_command(&message, 2) == cases[i].error, "command");
    }
}

static void test_data_takes_exactly_what_it_announces(void) {
    const int16_t values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const struct fisher_data data = {FISHER_INT16, 2, 3, 0, 0}, none = {FISHER_INT16, 2, 0, 0, 0}, strange = {9, 2, 3, 0, 0};
    const struct fisher_data *all[] = {&data, &data, &data, &none, &strange};
    const size_t counts[] = {6, 5, 7, 0, 6};
    CHECK(sizeof all / sizeof *all == sizeof counts / sizeof *counts, "cases");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        uint8_t frame[FISHER_DATA_FRAME_BYTES(8, 2)];
        struct fisher_sender sender = {.sequence = 41};
        struct fisher_writer writer;
        fisher_begin_data(&writer, &sender, frame, sizeof frame, 0, 0, all[i]);
        fisher_put_int16(&writer, values, counts[i]);
        CHECK((fisher_end(&writer) > 0) == (i == 0), "announced samples");
        CHECK(sender.sequence == 41u + (i == 0), "sequence");
        CHECK(sender.failure == (i == 0 ? FISHER_NO_FAILURE : FISHER_MISCOUNTED), "why");
    }
}

static void test_longest_message_is_2048_bytes(void) {
    static uint8_t frame[4096], zeros[4096];
    for (size_t count = 2035; count < 2039; count++) {
        struct fisher_sender sender = {0};
        struct fisher_writer writer;
        fisher_begin(&writer, &sender, frame, sizeof frame, 77, 0, 0);
        fisher_put(&writer, zeros, count);
        CHECK((fisher_end(&writer) > 0) == (count + FISHER_MIN_MESSAGE <= FISHER_MAX_MESSAGE), "2048 bytes");
        CHECK(sender.failure == (sender.sequence == 1 ? FISHER_NO_FAILURE : FISHER_TOO_LONG), "why");
    }
}

/* Number of the message in a frame; the frame has to be sound. */
static uint32_t number_in(const uint8_t *frame, size_t bytes) {
    uint8_t buffer[FISHER_MAX_MESSAGE];
    struct fisher_decoder decoder;
    struct fisher_message message = {0};
    bool found = false;
    fisher_decoder_init(&decoder, buffer, sizeof buffer);
    fisher_decode(&decoder, frame, bytes, &message, &found);
    CHECK(found, "a sound frame");
    return message.sequence;
}

/* A DMA fills a DATA in two pieces, and a PING wants its answer in between. */
static void test_second_open_frame_is_refused(void) {
    const int16_t values[4] = {1, 2, 3, 4};
    const struct fisher_data data = {FISHER_INT16, 1, 4, 0, 0};
    const struct fisher_pong pong = {1, 2, 3};
    struct fisher_sender sender = {.sequence = 100};
    struct fisher_writer samples, other;
    uint8_t frame[FISHER_DATA_FRAME_BYTES(4, 2)], answer[40];
    size_t bytes;
    fisher_begin_data(&samples, &sender, frame, sizeof frame, 0, 0, &data);
    fisher_put_int16(&samples, values, 2);
    CHECK(fisher_write_pong(&sender, answer, sizeof answer, &pong) == 0, "a PONG in between");
    CHECK(sender.failure == FISHER_BUSY, "why");
    fisher_begin(&other, &sender, answer, sizeof answer, FISHER_PONG, 0, 0);
    fisher_put_int16(&samples, values + 2, 2);
    bytes = fisher_end(&samples);
    CHECK(bytes > 0 && number_in(frame, bytes) == 100, "the DATA");
    CHECK(fisher_end(&other) == 0 && sender.failure == FISHER_BUSY, "refused at its begin");
    CHECK(fisher_end(&samples) == 0 && sender.failure == FISHER_BUSY, "finished twice");
    bytes = fisher_write_pong(&sender, answer, sizeof answer, &pong);
    CHECK(bytes > 0 && number_in(answer, bytes) == 101 && sender.failure == FISHER_NO_FAILURE, "the PONG behind");
    CHECK(sender.sequence == 102, "sequence");
}

static void test_frame_that_is_given_up_takes_no_number(void) {
    const struct fisher_data data = {FISHER_INT16, 1, 4, 0, 0};
    const struct fisher_pong pong = {1, 2, 3};
    struct fisher_sender sender = {.sequence = 7};
    struct fisher_writer samples;
    uint8_t frame[FISHER_DATA_FRAME_BYTES(4, 2)], answer[40];
    size_t bytes;
    fisher_begin_data(&samples, &sender, frame, sizeof frame, 0, 0, &data);
    fisher_begin_data(&samples, &sender, frame, sizeof frame, 0, 0, &data); /* begun again by its own writer */
    fisher_cancel(&samples);
    CHECK(fisher_end(&samples) == 0, "given up");
    bytes = fisher_write_pong(&sender, answer, sizeof answer, &pong);
    CHECK(bytes > 0 && number_in(answer, bytes) == 7, "the next frame");
}

static void test_rubbish_is_survived(void) {
    uint8_t buffer[FISHER_MAX_MESSAGE], bytes[3000];
    struct fisher_decoder decoder;
    struct fisher_message message;
    bool found = false;
    fisher_decoder_init(&decoder, buffer, sizeof buffer);
    for (int round = 0; round < 3000; round++) {
        size_t count = (size_t)(rand() % (int)sizeof bytes);
        for (size_t i = 0; i < count; i++) {
            bytes[i] = (uint8_t)(rand() % 16 ? rand() : 0);
        }
        for (size_t done = 0; done < count;) {
            done += fisher_decode(&decoder, bytes + done, count - done, &message, &found);
            CHECK(!found, "rubbish");
        }
        fisher_decode(&decoder, golden_frames[4].frame, golden_frames[4].frame_bytes, &message, &found);
        if (!found) { /* the delimiter in front ended the rubbish: the frame itself is next */
            CHECK(false, "a frame after rubbish");
        }
    }
    CHECK(decoder.damaged > 3000, "rubbish is counted");
}

static void test_other_version_is_no_message(void) {
    static const uint8_t frame[] = {0, 3, 9, 1, 1, 1, 1, 1, 1, 5, 0xf6, 0xcf, 0x1a, 0xdc, 0};
    uint8_t buffer[64];
    struct fisher_decoder decoder;
    struct fisher_message message;
    bool found;
    fisher_decoder_init(&decoder, buffer, sizeof buffer);
    fisher_decode(&decoder, frame, sizeof frame, &message, &found);
    CHECK(!found && decoder.other_versions == 1 && decoder.damaged == 0, "version 9");
}

int main(void) {
    test_golden_frames_are_written();
    test_buffer_that_is_too_small_fails();
    test_golden_frames_are_found();
    test_golden_streams_give_their_frames();
    test_samples_of_every_format_are_the_golden_ones();
    test_messages_of_a_device_are_the_golden_ones();
    test_commands_are_read();
    test_commands_are_checked();
    test_data_takes_exactly_what_it_announces();
    test_longest_message_is_2048_bytes();
    test_second_open_frame_is_refused();
    test_frame_that_is_given_up_takes_no_number();
    test_rubbish_is_survived();
    test_other_version_is_no_message();
#ifdef FISHER_CRC32
    CHECK(crc_unit_bytes > 0, "the CRC unit took the place of the table");
#endif
    printf("%d checks, %d failed\n", checks, failures);
    return failures > 0;
}
