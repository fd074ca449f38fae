/* Frames between a microcontroller and a gateway: the contracts are in fisher_frame.h. */
#include "fisher_frame.h"

#include <string.h>

enum { DEVICE_BYTES = 36, STREAM_BYTES = 48, PONG_BYTES = 16, STATS_BYTES = 20, ERROR_BYTES = 56 };

#ifndef FISHER_CRC32
#define FISHER_CRC32 crc32_update
static uint32_t crc32_update(uint32_t crc, const uint8_t *bytes, size_t count) {
    static const uint32_t table[16] = {
        0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u, 0x4DB26158u, 0x5005713Cu,
        0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu, 0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu,
    };
    while (count-- > 0) {
        crc ^= *bytes++;
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return crc;
}
#endif

static void store(uint8_t *bytes, uint64_t value, size_t count) {
    for (size_t i = 0; i < count; i++) {
        bytes[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t load(const uint8_t *bytes, size_t count) {
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++) {
        value |= (uint64_t)bytes[i] << (8 * i);
    }
    return value;
}

/* A text of at most `size` characters, padded with zeros; no text is an empty one. */
static void store_text(uint8_t *bytes, const char *text, size_t size) {
    memset(bytes, 0, size);
    for (size_t i = 0; text != NULL && i < size && text[i] != '\0'; i++) {
        bytes[i] = (uint8_t)text[i];
    }
}

/* Begin a group of COBS: its length is written when it is known. */
static void open_group(struct fisher_writer *writer) {
    if (writer->used >= writer->size) {
        writer->failure = FISHER_TOO_LONG;
        return;
    }
    writer->group = writer->used++;
}

static void close_group(struct fisher_writer *writer) {
    writer->buffer[writer->group] = (uint8_t)(writer->used - writer->group);
}

/* Stuff bytes. A full group is closed only when a byte follows it: a message does not end with an empty group. */
static void stuff(struct fisher_writer *writer, const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count && writer->failure == FISHER_NO_FAILURE; i++) {
        if (writer->used - writer->group == 255) {
            close_group(writer);
            open_group(writer);
        }
        if (bytes[i] == 0) {
            close_group(writer);
            open_group(writer);
        } else if (writer->used < writer->size) {
            writer->buffer[writer->used++] = bytes[i];
        } else {
            writer->failure = FISHER_TOO_LONG;
        }
    }
}

void fisher_begin(struct fisher_writer *writer, struct fisher_sender *sender, uint8_t *buffer, size_t size, uint8_t type,
                  uint8_t stream, uint8_t run) {
    uint8_t header[FISHER_HEADER_BYTES] = {FISHER_VERSION, type, stream, run, 0, 0, 0, 0};
    memset(writer, 0, sizeof *writer);
    writer->sender = sender;
    writer->buffer = buffer;
    writer->size = size;
    writer->crc = 0xFFFFFFFFu;
    if (sender->open != NULL && sender->open != writer) {
        writer->failure = FISHER_BUSY;
        return;
    }
    sender->open = writer;
    if (size < FISHER_FRAME_BYTES((size_t)FISHER_MIN_MESSAGE)) {
        writer->failure = FISHER_TOO_LONG;
        return;
    }
    buffer[writer->used++] = 0;
    open_group(writer);
    store(header + 4, sender->sequence, 4);
    fisher_put(writer, header, sizeof header);
}

/* Bytes of `count` samples of every channel, in 32 bits also where size_t has 16. */
static uint32_t sample_bytes(uint8_t format, uint8_t channels, uint16_t count) {
    return (uint32_t)fisher_value_bytes(format) * channels * count;
}

void fisher_begin_data(struct fisher_writer *writer, struct fisher_sender *sender, uint8_t *buffer, size_t size,
                       uint8_t stream, uint8_t run, const struct fisher_data *data) {
    uint8_t head[FISHER_DATA_BYTES] = {data->format, data->channels};
    uint32_t announced;
    fisher_begin(writer, sender, buffer, size, FISHER_DATA, stream, run);
    store(head + 2, data->count, 2);
    store(head + 4, data->ticks, 4);
    store(head + 8, data->index, 8);
    fisher_put(writer, head, sizeof head);
    if (writer->failure != FISHER_NO_FAILURE) {
        return;
    }
    announced = sample_bytes(data->format, data->channels, data->count);
    writer->counted = true;
    if (announced == 0) {
        writer->failure = FISHER_MISCOUNTED;
    } else if (announced > FISHER_MAX_MESSAGE) {
        writer->failure = FISHER_TOO_LONG;
    } else {
        writer->missing = (size_t)announced;
    }
}

void fisher_put(struct fisher_writer *writer, const void *bytes, size_t count) {
    if (writer->failure != FISHER_NO_FAILURE) {
        return;
    }
    if (writer->counted && count > writer->missing) {
        writer->failure = FISHER_MISCOUNTED;
        return;
    }
    if (count > FISHER_MAX_MESSAGE - FISHER_CRC_BYTES - writer->message) {
        writer->failure = FISHER_TOO_LONG;
        return;
    }
    writer->message += count;
    writer->missing -= writer->counted ? count : 0;
    writer->crc = FISHER_CRC32(writer->crc, bytes, count);
    stuff(writer, bytes, count);
}

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__

/* In memory as on the wire. */
static void put_words(struct fisher_writer *writer, const void *values, size_t count, size_t size) {
    fisher_put(writer, values, count * size);
}

#else

static void put_words(struct fisher_writer *writer, const void *values, size_t count, size_t size) {
    const uint8_t *words = values;
    uint8_t turned[4];
    for (size_t i = 0; i < count; i++) {
        for (size_t byte = 0; byte < size; byte++) {
            turned[byte] = words[i * size + size - 1 - byte];
        }
        fisher_put(writer, turned, size);
    }
}

#endif

void fisher_put_int16(struct fisher_writer *writer, const int16_t *values, size_t count) {
    put_words(writer, values, count, sizeof *values);
}

void fisher_put_int24(struct fisher_writer *writer, const int32_t *values, size_t count) {
    uint8_t bytes[3];
    for (size_t i = 0; i < count; i++) {
        store(bytes, (uint32_t)values[i], sizeof bytes);
        fisher_put(writer, bytes, sizeof bytes);
    }
}

void fisher_put_int32(struct fisher_writer *writer, const int32_t *values, size_t count) {
    put_words(writer, values, count, sizeof *values);
}

void fisher_put_float32(struct fisher_writer *writer, const float *values, size_t count) {
    put_words(writer, values, count, sizeof *values);
}

size_t fisher_end(struct fisher_writer *writer) {
    struct fisher_sender *sender = writer->sender;
    uint8_t crc[FISHER_CRC_BYTES];
    if (sender->open != writer) {
        sender->failure = FISHER_BUSY;
        return 0;
    }
    if (writer->failure == FISHER_NO_FAILURE && writer->missing != 0) {
        writer->failure = FISHER_MISCOUNTED;
    }
    store(crc, writer->crc ^ 0xFFFFFFFFu, sizeof crc);
    stuff(writer, crc, sizeof crc);
    if (writer->failure == FISHER_NO_FAILURE && writer->used >= writer->size) {
        writer->failure = FISHER_TOO_LONG;
    }
    sender->open = NULL;
    sender->failure = writer->failure;
    if (writer->failure != FISHER_NO_FAILURE) {
        return 0;
    }
    close_group(writer);
    writer->buffer[writer->used++] = 0;
    sender->sequence++;
    return writer->used;
}

void fisher_cancel(struct fisher_writer *writer) {
    if (writer->sender->open == writer) {
        writer->sender->open = NULL;
    }
    writer->failure = FISHER_BUSY;
}

size_t fisher_write_hello(struct fisher_sender *sender, uint8_t *buffer, size_t size, const struct fisher_hello *hello) {
    struct fisher_writer writer;
    uint8_t device[DEVICE_BYTES] = {0};
    fisher_begin(&writer, sender, buffer, size, FISHER_HELLO, 0, 0);
    store(device, hello->tick_hz, 4);
    store(device + 4, hello->boot, 4);
    memcpy(device + 8, hello->firmware, 8);
    store_text(device + 16, hello->board, FISHER_BOARD_BYTES);
    store(device + 32, hello->max_message, 2);
    device[34] = hello->streams;
    fisher_put(&writer, device, sizeof device);
    for (size_t i = 0; i < hello->streams; i++) {
        const struct fisher_stream_info *info = &hello->stream[i];
        uint8_t stream[STREAM_BYTES] = {info->stream, info->run, info->format, info->channels};
        store(stream + 4, info->rate_mhz, 4);
        store(stream + 8, (uint32_t)info->scale_mantissa, 4);
        stream[12] = (uint8_t)info->scale_exponent;
        stream[13] = info->running;
        store_text(stream + 16, info->unit, FISHER_UNIT_BYTES);
        store_text(stream + 24, info->sensor, FISHER_SENSOR_BYTES);
        fisher_put(&writer, stream, sizeof stream);
    }
    return fisher_end(&writer);
}

static size_t write_body(struct fisher_sender *sender, uint8_t *buffer, size_t size, uint8_t type, const uint8_t *body,
                         size_t count) {
    struct fisher_writer writer;
    fisher_begin(&writer, sender, buffer, size, type, 0, 0);
    fisher_put(&writer, body, count);
    return fisher_end(&writer);
}

size_t fisher_write_pong(struct fisher_sender *sender, uint8_t *buffer, size_t size, const struct fisher_pong *pong) {
    uint8_t body[PONG_BYTES];
    store(body, pong->token, 8);
    store(body + 8, pong->ticks_received, 4);
    store(body + 12, pong->ticks_sent, 4);
    return write_body(sender, buffer, size, FISHER_PONG, body, sizeof body);
}

size_t fisher_write_stats(struct fisher_sender *sender, uint8_t *buffer, size_t size, const struct fisher_stats *stats) {
    uint8_t body[STATS_BYTES];
    store(body, stats->dropped, 8);
    store(body + 8, stats->overruns, 4);
    store(body + 12, stats->frames_sent, 4);
    store(body + 16, stats->bad_frames, 4);
    return write_body(sender, buffer, size, FISHER_STATS, body, sizeof body);
}

size_t fisher_write_error(struct fisher_sender *sender, uint8_t *buffer, size_t size, uint8_t code, uint32_t sequence,
                          const char *text) {
    uint8_t body[ERROR_BYTES] = {code};
    store(body + 4, sequence, 4);
    store_text(body + 8, text, FISHER_TEXT_BYTES);
    return write_body(sender, buffer, size, FISHER_ERROR, body, sizeof body);
}

void fisher_decoder_init(struct fisher_decoder *decoder, uint8_t *buffer, size_t size) {
    memset(decoder, 0, sizeof *decoder);
    decoder->buffer = buffer;
    decoder->size = size < FISHER_MAX_MESSAGE ? size : FISHER_MAX_MESSAGE;
}

static void keep(struct fisher_decoder *decoder, uint8_t byte) {
    if (decoder->used < decoder->size) {
        decoder->buffer[decoder->used++] = byte;
    } else {
        decoder->refused = true;
    }
}

/* Take one byte that is no delimiter: the length of a group, or a byte of it. */
static void unstuff(struct fisher_decoder *decoder, uint8_t byte) {
    if (decoder->left > 0) {
        decoder->left--;
        keep(decoder, byte);
        return;
    }
    if (decoder->begun && !decoder->full_group) {
        keep(decoder, 0);
    }
    decoder->left = (uint8_t)(byte - 1);
    decoder->empty_after_full = decoder->begun && decoder->full_group && byte == 1;
    decoder->full_group = byte == 255;
    decoder->begun = true;
}

/* The delimiter has come: is what stands in the buffer a message? */
static bool complete(struct fisher_decoder *decoder, struct fisher_message *message) {
    const uint8_t *bytes = decoder->buffer;
    size_t content = decoder->used - FISHER_CRC_BYTES;
    if (decoder->refused || decoder->left > 0 || decoder->empty_after_full || decoder->used < FISHER_MIN_MESSAGE ||
        (FISHER_CRC32(0xFFFFFFFFu, bytes, content) ^ 0xFFFFFFFFu) != load(bytes + content, FISHER_CRC_BYTES)) {
        decoder->damaged++;
        return false;
    }
    if (bytes[0] != FISHER_VERSION) {
        decoder->other_versions++;
        return false;
    }
    message->type = bytes[1];
    message->stream = bytes[2];
    message->run = bytes[3];
    message->sequence = (uint32_t)load(bytes + 4, 4);
    message->body = bytes + FISHER_HEADER_BYTES;
    message->body_bytes = content - FISHER_HEADER_BYTES;
    return true;
}

size_t fisher_decode(struct fisher_decoder *decoder, const uint8_t *bytes, size_t count, struct fisher_message *message,
                     bool *found) {
    *found = false;
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != 0) {
            unstuff(decoder, bytes[i]);
            continue;
        }
        if (decoder->begun) {
            *found = complete(decoder, message);
        }
        decoder->used = 0;
        decoder->left = 0;
        decoder->begun = decoder->refused = decoder->full_group = decoder->empty_after_full = false;
        if (*found) {
            return i + 1;
        }
    }
    return count;
}

bool fisher_parse_rate(const struct fisher_message *message, uint32_t *rate_mhz) {
    if (message->type != FISHER_SET_RATE || message->body_bytes != 4) {
        return false;
    }
    *rate_mhz = (uint32_t)load(message->body, 4);
    return true;
}

bool fisher_parse_ping(const struct fisher_message *message, uint64_t *token) {
    if (message->type != FISHER_PING || message->body_bytes != 8) {
        return false;
    }
    *token = load(message->body, 8);
    return true;
}

size_t fisher_value_bytes(uint8_t format) {
    static const uint8_t bytes[] = {0, 2, 3, 4, 4};
    return format < sizeof bytes ? bytes[format] : 0;
}

/* A stream of a HELLO: a number, a format, channels and a rate that there can be. */
static bool stream_is_valid(const uint8_t *stream) {
    return stream[0] < FISHER_MAX_STREAMS && fisher_value_bytes(stream[2]) > 0 && stream[3] > 0 && load(stream + 4, 4) > 0;
}

static bool hello_is_valid(const uint8_t *body, size_t count) {
    size_t streams = count < DEVICE_BYTES ? 0 : body[34];
    if (streams < 1 || streams > FISHER_MAX_STREAMS || count != DEVICE_BYTES + streams * STREAM_BYTES || !load(body, 4)) {
        return false;
    }
    for (size_t i = 0; i < streams; i++) {
        if (!stream_is_valid(body + DEVICE_BYTES + i * STREAM_BYTES)) {
            return false;
        }
    }
    return true;
}

static bool data_is_valid(const uint8_t *body, size_t count) {
    return count > FISHER_DATA_BYTES &&
           count == FISHER_DATA_BYTES + sample_bytes(body[0], body[1], (uint16_t)load(body + 2, 2));
}

bool fisher_body_is_valid(const struct fisher_message *message) {
    switch (message->type) {
    case FISHER_HELLO:
        return hello_is_valid(message->body, message->body_bytes);
    case FISHER_DATA:
        return data_is_valid(message->body, message->body_bytes);
    case FISHER_PONG:
        return message->body_bytes == PONG_BYTES;
    case FISHER_STATS:
        return message->body_bytes == STATS_BYTES;
    case FISHER_ERROR:
        return message->body_bytes == ERROR_BYTES;
    case FISHER_SET_RATE:
        return message->body_bytes == 4;
    case FISHER_PING:
        return message->body_bytes == 8;
    case FISHER_WHO:
    case FISHER_START:
    case FISHER_STOP:
        return message->body_bytes == 0;
    default:
        return true;
    }
}

enum fisher_error_code fisher_check_command(const struct fisher_message *message, uint8_t streams) {
    bool to_all = message->stream == FISHER_ALL_STREAMS && message->type != FISHER_SET_RATE;
    if (message->type < FISHER_WHO || message->type > FISHER_PING) {
        return FISHER_UNKNOWN_TYPE;
    }
    if (!fisher_body_is_valid(message)) {
        return FISHER_BAD_BODY;
    }
    if (message->type >= FISHER_START && message->type <= FISHER_SET_RATE && !to_all && message->stream >= streams) {
        return FISHER_UNKNOWN_STREAM;
    }
    return FISHER_NO_ERROR;
}
