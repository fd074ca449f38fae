/* Frames between a microcontroller and a gateway: see ../PROTOCOL.md.
 *
 * A device keeps one fisher_sender, writes each frame into a buffer of its own with a fisher_writer, and reads commands
 * with a fisher_decoder. The library allocates nothing, keeps no state of its own and needs only <string.h>.
 *
 * Interrupts. Every object belongs to one context, the main loop or one interrupt, with one exception: an interrupt may
 * put samples into a frame that the main loop has begun, if the main loop leaves that writer alone meanwhile.
 * fisher_begin..., fisher_end, fisher_cancel and fisher_write_... change the sender: where two contexts share it, the
 * lower one masks the interrupt around these calls. One frame of a sender is open at a time, since frames leave in the
 * order of their numbers: a second one is refused with FISHER_BUSY. What is to be said while a DATA is filled piece by
 * piece (a PONG) is noted and written after fisher_end.
 *
 * FISHER_CONFIG_H, if it is defined, names a header to include first, as -DFISHER_CONFIG_H='"board.h"'. FISHER_CRC32, if
 * it is defined there or for the compiler, names a function that takes the place of the table of the CRC.
 */
#ifndef FISHER_FRAME_H
#define FISHER_FRAME_H

#ifdef FISHER_CONFIG_H
#include FISHER_CONFIG_H
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    FISHER_VERSION = 1,
    FISHER_HEADER_BYTES = 8,
    FISHER_CRC_BYTES = 4,
    FISHER_MIN_MESSAGE = FISHER_HEADER_BYTES + FISHER_CRC_BYTES,
    FISHER_MAX_MESSAGE = 2048,
    FISHER_DATA_BYTES = 16, /* of a DATA before its samples */
    FISHER_MAX_STREAMS = 16,
    FISHER_ALL_STREAMS = 255,
    FISHER_BOARD_BYTES = 16,
    FISHER_UNIT_BYTES = 8,
    FISHER_SENSOR_BYTES = 24,
    FISHER_TEXT_BYTES = 48
};

/* Bytes of a frame around a message of so many bytes: both delimiters and the stuffing at its worst. */
#define FISHER_FRAME_BYTES(message_bytes) ((message_bytes) + ((message_bytes) + 253) / 254 + 2)

/* Bytes of a frame with so many values, of all channels together, of so many bytes each. */
#define FISHER_DATA_FRAME_BYTES(values, bytes_per_value) \
    FISHER_FRAME_BYTES(FISHER_MIN_MESSAGE + FISHER_DATA_BYTES + (values) * (bytes_per_value))

/* Bytes of a frame with a HELLO of so many streams. */
#define FISHER_HELLO_FRAME_BYTES(streams) FISHER_FRAME_BYTES(FISHER_MIN_MESSAGE + 36 + 48 * (streams))

enum fisher_type {
    FISHER_HELLO = 1,
    FISHER_DATA = 2,
    FISHER_PONG = 3,
    FISHER_STATS = 4,
    FISHER_ERROR = 5,
    FISHER_WHO = 129,
    FISHER_START = 130,
    FISHER_STOP = 131,
    FISHER_SET_RATE = 132,
    FISHER_PING = 133
};

enum fisher_format { FISHER_INT16 = 1, FISHER_INT24 = 2, FISHER_INT32 = 3, FISHER_FLOAT32 = 4 };

enum fisher_error_code {
    FISHER_NO_ERROR = 0,
    FISHER_UNKNOWN_TYPE = 1,
    FISHER_UNKNOWN_STREAM = 2,
    FISHER_BAD_RATE = 3,
    FISHER_BAD_BODY = 4,
    FISHER_SENSOR_FAULT = 5
};

/* Why fisher_end returned 0. */
enum fisher_failure {
    FISHER_NO_FAILURE = 0,
    FISHER_TOO_LONG = 1, /* the frame does not fit the buffer, or the message is longer than 2048 bytes */
    FISHER_MISCOUNTED = 2, /* a DATA announced no samples, or got others than it announced */
    FISHER_BUSY = 3 /* another frame of the sender was open at fisher_begin, or this one was not begun */
};

/* Numbers the frames of one device: zero at boot. Every finished frame takes the next number. */
struct fisher_sender {
    uint32_t sequence; /* of the next frame */
    const struct fisher_writer *open; /* the frame under way; the library's */
    uint8_t failure; /* enum fisher_failure of the last fisher_end */
};

/* A frame under way. Its fields belong to the library. */
struct fisher_writer {
    struct fisher_sender *sender;
    uint8_t *buffer;
    size_t size;
    size_t used;
    size_t group; /* where the length of the group under way goes */
    size_t message; /* bytes of the message so far */
    size_t missing; /* bytes of samples that a DATA announced and that have not come */
    uint32_t crc;
    bool counted; /* what is put from now on was announced */
    uint8_t failure; /* enum fisher_failure */
};

/* A message found: `body` lies in the decoder's buffer and is valid until the next call. */
struct fisher_message {
    uint8_t type;
    uint8_t stream;
    uint8_t run;
    uint32_t sequence;
    const uint8_t *body;
    size_t body_bytes;
};

/* Finds messages in bytes that arrive in any pieces. `damaged` counts pieces between two delimiters that were no frame,
 * `other_versions` sound frames of a version this library does not speak. The other fields belong to the library. */
struct fisher_decoder {
    uint8_t *buffer;
    size_t size;
    size_t used;
    uint32_t damaged;
    uint32_t other_versions;
    uint8_t left; /* bytes of the group under way that have not come */
    bool full_group; /* the last group had 254 bytes: no zero follows it */
    bool empty_after_full; /* the last group is one that no sender writes at an end */
    bool begun;
    bool refused;
};

struct fisher_stream_info {
    uint8_t stream; /* 0 to 15 */
    uint8_t run;
    uint8_t format; /* enum fisher_format */
    uint8_t channels; /* at least 1 */
    uint32_t rate_mhz; /* millihertz, at least 1 */
    int32_t scale_mantissa; /* one count is scale_mantissa x 10^scale_exponent in `unit` */
    int8_t scale_exponent;
    uint8_t running; /* 1 or 0 */
    const char *unit; /* at most 8 characters are sent */
    const char *sensor; /* at most 24 */
};

struct fisher_hello {
    uint32_t tick_hz; /* at least 1 */
    uint32_t boot; /* another number after every boot */
    const uint8_t *firmware; /* 8 bytes: the start of a hash of what is running */
    const char *board; /* at most 16 characters are sent */
    uint16_t max_message;
    uint8_t streams; /* 1 to 16 */
    const struct fisher_stream_info *stream;
};

struct fisher_data {
    uint8_t format; /* enum fisher_format */
    uint8_t channels; /* at least 1 */
    uint16_t count; /* samples of every channel, at least 1 */
    uint32_t ticks; /* when the first sample was taken */
    uint64_t index; /* of the first sample in its run */
};

struct fisher_pong {
    uint64_t token;
    uint32_t ticks_received;
    uint32_t ticks_sent;
};

struct fisher_stats {
    uint64_t dropped; /* samples that were taken and could not be sent */
    uint32_t overruns; /* times that samples were lost, nobody knows how many */
    uint32_t frames_sent;
    uint32_t bad_frames; /* from the host: `damaged` of the decoder */
};

#ifdef FISHER_CRC32
/* The CRC-32 of zlib over `count` more bytes, without its inversions: `crc` is the state before (0xFFFFFFFF at the start),
 * the result the state after. Bytes and result are reflected. A unit has to take up `crc`: a message comes in pieces, and
 * the decoder uses the same function between them. */
uint32_t FISHER_CRC32(uint32_t crc, const uint8_t *bytes, size_t count);
#endif

/* Begin the frame of any message in `buffer` of `size` bytes. Nothing fails before fisher_end. A writer whose frame is
 * open begins again; while the frame of another writer is open, this one is refused (FISHER_BUSY). */
void fisher_begin(struct fisher_writer *writer, struct fisher_sender *sender, uint8_t *buffer, size_t size, uint8_t type,
                  uint8_t stream, uint8_t run);

/* Begin a DATA frame: `data->count` samples of every channel are then put in any pieces, interleaved. */
void fisher_begin_data(struct fisher_writer *writer, struct fisher_sender *sender, uint8_t *buffer, size_t size,
                       uint8_t stream, uint8_t run, const struct fisher_data *data);

/* Put bytes as they are: a part of a body, or samples that are already little-endian and packed. */
void fisher_put(struct fisher_writer *writer, const void *bytes, size_t count);

/* Put `count` values (channels x samples); int24 are the low 24 bits of int32. Fit for halves of a DMA buffer. */
void fisher_put_int16(struct fisher_writer *writer, const int16_t *values, size_t count);
void fisher_put_int24(struct fisher_writer *writer, const int32_t *values, size_t count);
void fisher_put_int32(struct fisher_writer *writer, const int32_t *values, size_t count);
void fisher_put_float32(struct fisher_writer *writer, const float *values, size_t count);

/* Finish the frame: its length in bytes, both delimiters included. 0 when it failed: `failure` of the sender says why. A
 * failed frame takes no number, and is no longer open. */
size_t fisher_end(struct fisher_writer *writer);

/* Give up a frame that was begun: the next one takes its number. */
void fisher_cancel(struct fisher_writer *writer);

/* Write one frame of a device at once; returns as fisher_end. */
size_t fisher_write_hello(struct fisher_sender *sender, uint8_t *buffer, size_t size, const struct fisher_hello *hello);
size_t fisher_write_pong(struct fisher_sender *sender, uint8_t *buffer, size_t size, const struct fisher_pong *pong);
size_t fisher_write_stats(struct fisher_sender *sender, uint8_t *buffer, size_t size, const struct fisher_stats *stats);
size_t fisher_write_error(struct fisher_sender *sender, uint8_t *buffer, size_t size, uint8_t code, uint32_t sequence,
                          const char *text);

/* Make a decoder ready; messages up to `size` bytes, CRC included, fit. Commands need 20 bytes, anything 2048. */
void fisher_decoder_init(struct fisher_decoder *decoder, uint8_t *buffer, size_t size);

/* Take bytes up to the end of the next message and return how many were taken. *found says whether `message` is one:
 * call again with the rest until everything is taken. Rubbish, damage and boot text are counted and passed over. */
size_t fisher_decode(struct fisher_decoder *decoder, const uint8_t *bytes, size_t count, struct fisher_message *message,
                     bool *found);

/* Read the body of a SET_RATE or a PING; false when it is not exactly that. */
bool fisher_parse_rate(const struct fisher_message *message, uint32_t *rate_mhz);
bool fisher_parse_ping(const struct fisher_message *message, uint64_t *token);

/* Whether the body is exactly what its type says (for WHO, START and STOP: empty); true for a type nobody knows. */
bool fisher_body_is_valid(const struct fisher_message *message);

/* What the ERROR that answers a command has to say, on a device with the streams 0 to `streams` - 1; FISHER_NO_ERROR for
 * a command that can be carried out as far as the library can tell: whether a rate is possible is for the device. */
enum fisher_error_code fisher_check_command(const struct fisher_message *message, uint8_t streams);

/* Bytes of a value of a format; 0 for a format that there is not. */
size_t fisher_value_bytes(uint8_t format);

#ifdef __cplusplus
}
#endif

#endif
