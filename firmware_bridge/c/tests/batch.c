/* Whole streams of bytes through the decoder at once, for the tests that compare it with the one in Python. */
#include "fisher_frame.h"

#include <string.h>

int64_t fisher_batch_decode(const uint8_t *bytes, size_t count, size_t chunk, uint8_t *out, size_t size, uint64_t counts[3]);

static uint8_t verdict(const struct fisher_message *message) {
    bool known = (message->type >= FISHER_HELLO && message->type <= FISHER_ERROR) ||
                 (message->type >= FISHER_WHO && message->type <= FISHER_PING);
    return known ? fisher_body_is_valid(message) : 2;
}

/* Write a message as its length in two bytes, header, body and verdict; how many bytes that took, 0 without room. */
static size_t put(uint8_t *out, size_t size, const struct fisher_message *message) {
    size_t length = FISHER_HEADER_BYTES + message->body_bytes;
    uint8_t head[2 + FISHER_HEADER_BYTES] = {(uint8_t)length, (uint8_t)(length >> 8), FISHER_VERSION, message->type,
                                             message->stream, message->run};
    if (size < length + 3) {
        return 0;
    }
    for (int i = 0; i < 4; i++) {
        head[6 + i] = (uint8_t)(message->sequence >> (8 * i));
    }
    memcpy(out, head, sizeof head);
    memcpy(out + sizeof head, message->body, message->body_bytes);
    out[length + 2] = verdict(message);
    return length + 3;
}

/* Feed `bytes` in pieces of `chunk`; `counts` are the accepted, the damaged and those of other versions. Returns the
 * bytes written to `out`, or -1 when it is too small. */
int64_t fisher_batch_decode(const uint8_t *bytes, size_t count, size_t chunk, uint8_t *out, size_t size, uint64_t counts[3]) {
    uint8_t buffer[FISHER_MAX_MESSAGE];
    struct fisher_decoder decoder;
    struct fisher_message message;
    size_t used = 0;
    bool found;
    fisher_decoder_init(&decoder, buffer, sizeof buffer);
    counts[0] = 0;
    for (size_t done = 0; done < count;) {
        size_t piece = chunk - done % chunk < count - done ? chunk - done % chunk : count - done;
        done += fisher_decode(&decoder, bytes + done, piece, &message, &found);
        if (found) {
            size_t written = put(out + used, size - used, &message);
            if (written == 0) {
                return -1;
            }
            used += written;
            counts[0]++;
        }
    }
    counts[1] = decoder.damaged;
    counts[2] = decoder.other_versions;
    return (int64_t)used;
}
