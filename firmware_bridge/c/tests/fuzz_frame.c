/* libFuzzer: any bytes through the decoder, and what it accepts back through the encoder. */
#include "fisher_frame.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

/* The frame of an accepted message is accepted again, and says the same. */
static void encode_again(const struct fisher_message *message) {
    uint8_t frame[FISHER_FRAME_BYTES(FISHER_MAX_MESSAGE)], buffer[FISHER_MAX_MESSAGE];
    struct fisher_sender sender = {.sequence = message->sequence};
    struct fisher_writer writer;
    struct fisher_decoder decoder;
    struct fisher_message again;
    bool found;
    size_t length;
    fisher_begin(&writer, &sender, frame, sizeof frame, message->type, message->stream, message->run);
    fisher_put(&writer, message->body, message->body_bytes);
    length = fisher_end(&writer);
    fisher_decoder_init(&decoder, buffer, sizeof buffer);
    if (length == 0 || fisher_decode(&decoder, frame, length, &again, &found) != length || !found ||
        again.sequence != message->sequence || again.body_bytes != message->body_bytes ||
        memcmp(again.body, message->body, again.body_bytes) != 0) {
        abort();
    }
}

/* A frame of the bytes themselves, after rubbish, is found: the decoder has found its feet at the next delimiter. */
static void resume(struct fisher_decoder *decoder, const uint8_t *bytes, size_t count) {
    uint8_t frame[FISHER_FRAME_BYTES(FISHER_MAX_MESSAGE)];
    struct fisher_sender sender = {.sequence = 7};
    struct fisher_writer writer;
    struct fisher_message message;
    bool found = false;
    size_t length, taken = 0;
    fisher_begin(&writer, &sender, frame, sizeof frame, 99, 1, 2);
    fisher_put(&writer, bytes, count < 1000 ? count : 1000);
    length = fisher_end(&writer);
    while (taken < length) {
        taken += fisher_decode(decoder, frame + taken, length - taken, &message, &found);
    }
    if (length == 0 || !found || message.type != 99 || message.sequence != 7) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    uint8_t buffer[FISHER_MAX_MESSAGE];
    struct fisher_decoder decoder;
    struct fisher_message message;
    uint32_t rate_mhz;
    uint64_t token;
    bool found;
    fisher_decoder_init(&decoder, buffer, sizeof buffer);
    for (size_t taken = 0; taken < count;) {
        taken += fisher_decode(&decoder, bytes + taken, count - taken, &message, &found);
        if (found) {
            fisher_check_command(&message, 3);
            fisher_parse_rate(&message, &rate_mhz);
            fisher_parse_ping(&message, &token);
            encode_again(&message);
        }
    }
    resume(&decoder, bytes, count);
    return 0;
}
