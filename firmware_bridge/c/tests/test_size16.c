/* The library where size_t has 16 bits, as on an AVR: the sizes a DATA announces do not wrap. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define size_t uint16_t
#include "../fisher_frame.c"
#undef size_t

static int failures, checks;

static void check(bool sound, const char *what) {
    checks++;
    if (!sound) {
        failures++;
        fprintf(stderr, "FAILED: %s\n", what);
    }
}

int main(void) {
    static const uint16_t counts[] = {16385, 32769, 65535}; /* of four bytes: 4, 4 and 65532 modulo 65536 */
    static const float value = 1;
    for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
        const struct fisher_data data = {FISHER_FLOAT32, 1, counts[i], 0, 0};
        struct fisher_message message = {.type = FISHER_DATA, .body_bytes = FISHER_DATA_BYTES + 4};
        struct fisher_sender sender = {.sequence = 5};
        struct fisher_writer writer;
        uint8_t frame[64], body[FISHER_DATA_BYTES + 4] = {FISHER_FLOAT32, 1};
        fisher_begin_data(&writer, &sender, frame, sizeof frame, 0, 0, &data);
        fisher_put_float32(&writer, &value, 1);
        check(fisher_end(&writer) == 0, "a DATA with one sample of thousands");
        check(sender.failure == FISHER_TOO_LONG && sender.sequence == 5, "why");
        store(body + 2, counts[i], 2);
        message.body = body;
        check(!fisher_body_is_valid(&message), "a body with one sample of thousands");
    }
    printf("size_t of 16 bits: %d checks, %d failed\n", checks, failures);
    return failures > 0;
}
