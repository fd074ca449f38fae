/* The emulated device; the contracts are in device.h. */
#include "device.h"

#include <string.h>
#include <unistd.h>

enum { TICK_HZ = 1000000, TICK_NS = 1000, WRAPS_AFTER_S = 5, WRAPS_AFTER_FRAMES = 200 };

static const double MIN_RATE_HZ = 100, MAX_RATE_HZ = 1e6, SECOND_NS = 1e9;
static const uint8_t FIRMWARE[8] = {'e', 'm', 'u', 'l', 'a', 't', 'o', 'r'};

static double clock_ns(const struct device *device, int64_t now_ns) {
    return (double)(now_ns - device->boot_ns) * (1 + device->options.drift_ppm * 1e-6);
}

/* The counter wraps five seconds after the boot. */
static uint32_t ticks_at(double device_ns) {
    return (uint32_t)((uint64_t)(device_ns / TICK_NS) - (uint64_t)WRAPS_AFTER_S * TICK_HZ);
}

/* Frames that are not samples find room or are lost, as in a device without memory to spare. */
static void send(struct device *device, uint8_t *frame, size_t bytes, bool may_be_hurt, int64_t now_ns) {
    if (bytes > 0 && line_has_room(device->line, bytes)) {
        line_send(device->line, frame, bytes, 0, may_be_hurt, now_ns);
    }
}

static void say_hello(struct device *device, int64_t now_ns) {
    const struct device_options *options = &device->options;
    struct fisher_stream_info info[FISHER_MAX_STREAMS];
    uint8_t frame[FISHER_HELLO_FRAME_BYTES(FISHER_MAX_STREAMS)];
    struct fisher_hello hello = {TICK_HZ, device->boot, FIRMWARE, options->board, sizeof device->decoder_buffer,
                                 (uint8_t)options->streams, info};
    for (uint8_t i = 0; i < options->streams; i++) {
        const struct stream *stream = &device->stream[i];
        info[i] = (struct fisher_stream_info){i,
                                              stream->run,
                                              options->format,
                                              (uint8_t)options->channels,
                                              (uint32_t)(stream->rate_hz * 1000 + 0.5),
                                              options->scale_mantissa,
                                              options->scale_exponent,
                                              stream->running,
                                              options->unit,
                                              options->sensor};
    }
    send(device, frame, fisher_write_hello(&device->sender, frame, sizeof frame, &hello), false, now_ns);
}

static void say_stats(struct device *device, bool may_be_hurt, int64_t now_ns) {
    uint8_t frame[64];
    struct fisher_stats stats = {device->dropped, 0, (uint32_t)device->line->frames, device->decoder.damaged};
    send(device, frame, fisher_write_stats(&device->sender, frame, sizeof frame, &stats), may_be_hurt, now_ns);
}

static void refuse(struct device *device, const struct command *command, int64_t now_ns) {
    static const char *const texts[] = {"", "unknown command", "no such stream", "rate 100 Hz to 1 MHz", "body damaged"};
    uint8_t frame[96];
    size_t bytes = fisher_write_error(&device->sender, frame, sizeof frame, (uint8_t)command->error, command->sequence,
                                      texts[command->error]);
    send(device, frame, bytes, true, now_ns);
}

void device_boot(struct device *device, const struct device_options *options, struct line *line, int64_t now_ns) {
    memset(device, 0, sizeof *device);
    device->options = *options;
    device->line = line;
    device->boot_ns = now_ns;
    device->boot = (uint32_t)now_ns ^ ((uint32_t)getpid() << 16);
    device->sender.sequence = 0u - WRAPS_AFTER_FRAMES;
    fisher_decoder_init(&device->decoder, device->decoder_buffer, sizeof device->decoder_buffer);
    for (size_t i = 0; i < options->streams; i++) {
        device->stream[i].rate_hz = options->rate_hz;
    }
    say_hello(device, now_ns);
}

static void begin_run(struct device *device, struct stream *stream, int64_t now_ns) {
    stream->run++;
    stream->running = true;
    stream->index = 0;
    stream->began_ns = clock_ns(device, now_ns);
    device->stats_due_ns = now_ns + (int64_t)SECOND_NS;
    device->runs++;
}

void device_start_all(struct device *device, int64_t now_ns) {
    for (size_t i = 0; i < device->options.streams; i++) {
        begin_run(device, &device->stream[i], now_ns);
    }
}

static void start_or_stop(struct device *device, const struct command *command, int64_t now_ns) {
    for (size_t i = 0; i < device->options.streams; i++) {
        struct stream *stream = &device->stream[i];
        if (command->stream != FISHER_ALL_STREAMS && command->stream != i) {
            continue;
        }
        if (command->type == FISHER_STOP) {
            stream->running = false;
        } else if (!stream->running) {
            begin_run(device, stream, now_ns);
        }
    }
    say_hello(device, now_ns);
    device->line->damaging = device->line->damaging || command->type == FISHER_START;
}

static void set_rate(struct device *device, struct command *command, int64_t now_ns) {
    struct stream *stream = &device->stream[command->stream];
    double rate_hz = command->rate_mhz / 1000.0;
    if (rate_hz < MIN_RATE_HZ || rate_hz > MAX_RATE_HZ) {
        command->error = FISHER_BAD_RATE;
        refuse(device, command, now_ns);
        return;
    }
    if (rate_hz < stream->rate_hz || rate_hz > stream->rate_hz) {
        stream->rate_hz = rate_hz;
        if (stream->running) {
            begin_run(device, stream, now_ns);
        }
    }
    say_hello(device, now_ns);
}

static void answer_ping(struct device *device, const struct command *command, int64_t now_ns) {
    uint8_t frame[64];
    uint32_t ticks = ticks_at(clock_ns(device, now_ns));
    struct fisher_pong pong = {command->token, ticks, ticks};
    send(device, frame, fisher_write_pong(&device->sender, frame, sizeof frame, &pong), true, now_ns);
}

static void carry_out(struct device *device, struct command *command, int64_t now_ns) {
    device->commands++;
    if (command->error != FISHER_NO_ERROR) {
        refuse(device, command, now_ns);
    } else if (command->type == FISHER_WHO) {
        say_hello(device, now_ns);
    } else if (command->type == FISHER_SET_RATE) {
        set_rate(device, command, now_ns);
    } else if (command->type == FISHER_PING) {
        answer_ping(device, command, now_ns);
    } else {
        start_or_stop(device, command, now_ns);
    }
}

/* Put a command where it waits for the delay of the line. */
static void receive(struct device *device, const struct fisher_message *message, int64_t now_ns) {
    struct command *command = &device->command[device->commands_waiting];
    int64_t before_ns = device->commands_waiting > 0 ? command[-1].due_ns : 0;
    int64_t due_ns = now_ns + (int64_t)(line_chance(device->line) * (double)device->line->jitter_ns);
    if (device->commands_waiting == DEVICE_COMMANDS) {
        return;
    }
    memset(command, 0, sizeof *command);
    command->due_ns = due_ns > before_ns ? due_ns : before_ns;
    command->type = message->type;
    command->stream = message->stream;
    command->sequence = message->sequence;
    command->error = fisher_check_command(message, (uint8_t)device->options.streams);
    fisher_parse_rate(message, &command->rate_mhz);
    fisher_parse_ping(message, &command->token);
    device->commands_waiting++;
}

static void listen(struct device *device, int64_t now_ns) {
    uint8_t bytes[512];
    struct fisher_message message;
    bool found;
    for (size_t count = line_read(device->line, bytes, sizeof bytes); count > 0;
         count = line_read(device->line, bytes, sizeof bytes)) {
        device->line->host_there = true;
        for (size_t taken = 0; taken < count;) {
            taken += fisher_decode(&device->decoder, bytes + taken, count - taken, &message, &found);
            if (found) {
                receive(device, &message, now_ns);
            }
        }
    }
}

/* Put the samples of a frame: those of the recording, or values that count. */
static void put_samples(struct device *device, struct fisher_writer *writer, uint64_t index, uint32_t count) {
    const struct device_options *options = &device->options;
    size_t bytes = fisher_value_bytes(options->format) * options->channels;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t value = (index + i) * options->channels;
        if (options->pcm != NULL) {
            fisher_put(writer, options->pcm + (index + i) % options->pcm_samples * bytes, bytes);
            continue;
        }
        for (unsigned channel = 0; channel < options->channels; channel++, value++) {
            int16_t small = (int16_t)(uint16_t)value;
            int32_t large = (int32_t)(uint32_t)value;
            float real = (float)small / 32768.0f;
            switch (options->format) {
            case FISHER_INT16:
                fisher_put_int16(writer, &small, 1);
                break;
            case FISHER_INT24:
                fisher_put_int24(writer, &large, 1);
                break;
            case FISHER_INT32:
                fisher_put_int32(writer, &large, 1);
                break;
            default:
                fisher_put_float32(writer, &real, 1);
            }
        }
    }
}

/* Samples of the next frame of a stream: fewer at the end of a run. */
static uint32_t next_count(const struct device *device, const struct stream *stream) {
    uint64_t left = device->options.count - stream->index;
    return device->options.count == 0 || left > device->options.frame ? device->options.frame : (uint32_t)left;
}

/* When the last sample of the next frame is taken, on the device's clock. */
static double frame_ns(const struct device *device, const struct stream *stream) {
    return stream->began_ns + (double)(stream->index + next_count(device, stream)) * SECOND_NS / stream->rate_hz;
}

/* Send the next frame of a stream, or leave its samples out when there is no room. */
static void send_samples(struct device *device, uint8_t number, int64_t now_ns) {
    struct stream *stream = &device->stream[number];
    uint32_t count = next_count(device, stream);
    uint8_t frame[FISHER_FRAME_BYTES(FISHER_MAX_MESSAGE)];
    double taken_ns = stream->began_ns + (double)stream->index * SECOND_NS / stream->rate_hz;
    struct fisher_data data = {device->options.format, (uint8_t)device->options.channels, (uint16_t)count,
                               ticks_at(taken_ns), stream->index};
    struct fisher_writer writer;
    bool last = device->options.count > 0 && stream->index + count == device->options.count;
    if (line_has_room(device->line, sizeof frame)) {
        fisher_begin_data(&writer, &device->sender, frame, sizeof frame, number, stream->run, &data);
        put_samples(device, &writer, stream->index, count);
        /* the last of a run is spared: without it nobody could tell what is missing before */
        line_send(device->line, frame, fisher_end(&writer), count, !last, now_ns);
    } else {
        device->dropped += count;
    }
    stream->index += count;
    device->samples += number == 0 ? count : 0;
    if (last) {
        stream->running = false;
        say_stats(device, false, now_ns);
    }
}

void device_work(struct device *device, int64_t now_ns) {
    size_t done = 0;
    bool running = false;
    listen(device, now_ns);
    while (done < device->commands_waiting && device->command[done].due_ns <= now_ns) {
        carry_out(device, &device->command[done++], now_ns);
    }
    device->commands_waiting -= done;
    memmove(device->command, device->command + done, device->commands_waiting * sizeof *device->command);
    for (uint8_t i = 0; i < device->options.streams; i++) {
        struct stream *stream = &device->stream[i];
        while (stream->running && (device->options.fast ? line_has_room(device->line, FISHER_MAX_MESSAGE + 16)
                                                        : frame_ns(device, stream) <= clock_ns(device, now_ns))) {
            send_samples(device, i, now_ns);
        }
        running = running || stream->running;
    }
    if (running && now_ns >= device->stats_due_ns) {
        device->stats_due_ns = now_ns + (int64_t)SECOND_NS;
        say_stats(device, true, now_ns);
    }
    line_flush(device->line, now_ns);
}

int64_t device_next_ns(const struct device *device, int64_t now_ns) {
    int64_t next_ns = line_next_ns(device->line);
    if (next_ns <= now_ns) { /* it waits for the host, not for the time */
        next_ns = now_ns + (int64_t)SECOND_NS / 100;
    }
    if (device->commands_waiting > 0 && device->command[0].due_ns < next_ns) {
        next_ns = device->command[0].due_ns;
    }
    for (size_t i = 0; i < device->options.streams; i++) {
        const struct stream *stream = &device->stream[i];
        if (stream->running && !device->options.fast) {
            double ahead_ns = frame_ns(device, stream) - clock_ns(device, now_ns);
            int64_t due_ns = now_ns + (int64_t)(ahead_ns / (1 + device->options.drift_ppm * 1e-6)) + 1;
            next_ns = due_ns < next_ns ? due_ns : next_ns;
        }
    }
    return next_ns < now_ns + (int64_t)SECOND_NS ? next_ns : now_ns + (int64_t)SECOND_NS;
}
