/* A whole device on a pty, made of the firmware's own library: fisher_emulator --help lists what it can be. */
#define _GNU_SOURCE
#include "device.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { USAGE = 2, DEFAULT_BUFFER = 262144, LEAST_BUFFER = 4096 };

static const int64_t SECOND_NS = 1000000000;

static const char HELP[] =
    "usage: fisher_emulator [options]\n"
    "  --link PATH            name of the port: a symbolic link\n"
    "  --rate HZ --channels N --streams N --format int16|int24|int32|float32 --frame SAMPLES\n"
    "  --pcm FILE             replay raw little-endian samples; --once: not in a loop\n"
    "  --count N              end the run after N samples of every channel\n"
    "  --unit U --scale-mantissa M --scale-exponent E --sensor ID --board NAME\n"
    "  --loss P --bitflip P --drift-ppm D --jitter-ms J --seed S --tx-buffer BYTES\n"
    "  --boot-text TEXT --start --fast --duration S\n";

/* What only the program itself needs, besides the device and its line. */
struct program {
    const char *pcm;
    const char *boot_text;
    bool once;
    bool start;
    double duration_s;
    uint64_t seed;
    size_t buffer_bytes;
};

static volatile sig_atomic_t ended, reset;

/* SIGUSR1 is the reset button. */
static void note(int number) {
    if (number == SIGUSR1) {
        reset = 1;
    } else {
        ended = 1;
    }
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

static double number(const char *name, const char *text, double low, double high) {
    char *rest;
    double value = strtod(text, &rest);
    if (*text == '\0' || *rest != '\0' || !(value >= low && value <= high)) {
        fprintf(stderr, "error: --%s %s is not within %g and %g\n", name, text, low, high);
        exit(USAGE);
    }
    return value;
}

static uint8_t format(const char *text) {
    static const char *const names[] = {"int16", "int24", "int32", "float32"};
    for (uint8_t i = 0; i < 4; i++) {
        if (strcmp(text, names[i]) == 0) {
            return (uint8_t)(i + 1);
        }
    }
    fprintf(stderr, "error: --format %s is none of int16, int24, int32, float32\n", text);
    exit(USAGE);
}

/* Take an option of the device; false when it is not one. */
static bool device_option(struct device_options *device, const char *name, const char *text) {
    if (strcmp(name, "rate") == 0) {
        device->rate_hz = number(name, text, 1, 4e6);
    } else if (strcmp(name, "channels") == 0) {
        device->channels = (unsigned)number(name, text, 1, 255);
    } else if (strcmp(name, "streams") == 0) {
        device->streams = (unsigned)number(name, text, 1, FISHER_MAX_STREAMS);
    } else if (strcmp(name, "format") == 0) {
        device->format = format(text);
    } else if (strcmp(name, "frame") == 0) {
        device->frame = (uint32_t)number(name, text, 1, 65535);
    } else if (strcmp(name, "count") == 0) {
        device->count = (uint64_t)number(name, text, 1, 1e15);
    } else if (strcmp(name, "drift-ppm") == 0) {
        device->drift_ppm = number(name, text, -5e5, 5e5);
    } else if (strcmp(name, "unit") == 0) {
        device->unit = text;
    } else if (strcmp(name, "sensor") == 0) {
        device->sensor = text;
    } else if (strcmp(name, "board") == 0) {
        device->board = text;
    } else if (strcmp(name, "scale-mantissa") == 0) {
        device->scale_mantissa = (int32_t)number(name, text, INT32_MIN, INT32_MAX);
    } else if (strcmp(name, "scale-exponent") == 0) {
        device->scale_exponent = (int8_t)number(name, text, -128, 127);
    } else if (strcmp(name, "fast") == 0) {
        device->fast = true;
    } else {
        return false;
    }
    return true;
}

static void other_option(struct program *program, struct line *line, const char *name, const char *text) {
    if (strcmp(name, "link") == 0) {
        line->link = text;
    } else if (strcmp(name, "loss") == 0) {
        line->loss = number(name, text, 0, 1);
    } else if (strcmp(name, "bitflip") == 0) {
        line->bitflip = number(name, text, 0, 0.5);
    } else if (strcmp(name, "jitter-ms") == 0) {
        line->jitter_ns = (int64_t)(1e6 * number(name, text, 0, 1000));
    } else if (strcmp(name, "seed") == 0) {
        program->seed = (uint64_t)number(name, text, 0, 1e15);
    } else if (strcmp(name, "tx-buffer") == 0) {
        program->buffer_bytes = (size_t)number(name, text, LEAST_BUFFER, 1e9);
    } else if (strcmp(name, "pcm") == 0) {
        program->pcm = text;
    } else if (strcmp(name, "boot-text") == 0) {
        program->boot_text = text;
    } else if (strcmp(name, "duration") == 0) {
        program->duration_s = number(name, text, 0, 1e7);
    } else if (strcmp(name, "once") == 0) {
        program->once = true;
    } else {
        program->start = true;
    }
}

static void read_options(int count, char **words, struct program *program, struct device_options *device,
                         struct line *line) {
    static const char *const flags[] = {"fast", "once", "start"};
    static const char *const values[] = {"link",     "rate",           "channels",       "streams",   "format", "frame",
                                         "pcm",      "count",          "unit",           "sensor",    "board",  "loss",
                                         "bitflip",  "drift-ppm",      "jitter-ms",      "seed",      "duration",
                                         "boot-text", "scale-mantissa", "scale-exponent", "tx-buffer"};
    enum { FLAGS = sizeof flags / sizeof *flags, VALUES = sizeof values / sizeof *values };
    struct option options[FLAGS + VALUES + 1];
    int place;
    memset(options, 0, sizeof options);
    for (size_t i = 0; i < FLAGS + VALUES; i++) {
        options[i].name = i < FLAGS ? flags[i] : values[i - FLAGS];
        options[i].has_arg = i < FLAGS ? no_argument : required_argument;
    }
    for (int found = getopt_long(count, words, "", options, &place); found != -1;
         found = getopt_long(count, words, "", options, &place)) {
        if (found != 0) {
            fputs(HELP, stderr);
            exit(USAGE);
        }
        if (!device_option(device, options[place].name, optarg)) {
            other_option(program, line, options[place].name, optarg);
        }
    }
}

/* About twenty milliseconds a frame, as far as that fits a message. */
static void choose_frame(struct device_options *device) {
    size_t bytes = fisher_value_bytes(device->format) * device->channels;
    size_t most = (FISHER_MAX_MESSAGE - FISHER_MIN_MESSAGE - FISHER_DATA_BYTES) / bytes;
    double wanted = device->rate_hz / 50;
    if (device->frame > most) {
        fprintf(stderr, "error: --frame %" PRIu32 " does not fit a message; at most %zu\n", device->frame, most);
        exit(USAGE);
    }
    if (device->frame == 0) {
        device->frame = wanted < 1 ? 1 : wanted > (double)most ? (uint32_t)most : (uint32_t)wanted;
    }
}

static void read_pcm(const struct program *program, struct device_options *device) {
    FILE *file = fopen(program->pcm, "rb");
    long bytes = -1;
    uint8_t *samples = NULL;
    size_t width = fisher_value_bytes(device->format) * device->channels;
    if (file != NULL && fseek(file, 0, SEEK_END) == 0) {
        bytes = ftell(file);
        rewind(file);
        samples = bytes > 0 ? malloc((size_t)bytes) : NULL;
    }
    if (samples == NULL || fread(samples, 1, (size_t)bytes, file) != (size_t)bytes || (size_t)bytes < width) {
        fprintf(stderr, "error: %s cannot be read, or holds no sample\n", program->pcm);
        exit(USAGE);
    }
    fclose(file);
    device->pcm = samples;
    device->pcm_samples = (size_t)bytes / width;
    if (program->once) {
        device->count = device->pcm_samples;
    }
}

static void print_counts(const struct device *device, const struct line *line) {
    printf("{\"frames\": %" PRIu64 ", \"frames_lost\": %" PRIu64 ", \"frames_flipped\": %" PRIu64
           ", \"bits_flipped\": %" PRIu64 ", \"samples\": %" PRIu64 ", \"samples_lost\": %" PRIu64
           ", \"samples_dropped\": %" PRIu64 ", \"runs\": %" PRIu64 ", \"commands\": %" PRIu64 ", \"bad_commands\": %" PRIu32
           "}\n",
           line->frames, line->frames_lost, line->frames_flipped, line->bits_flipped, device->samples, line->samples_lost,
           device->dropped, device->runs, device->commands, device->decoder.damaged);
}

/* Work until somebody ends it, and then until the host has read what waits. */
static void run(struct device *device, struct line *line, const struct program *program) {
    int64_t began_ns = now_ns(), end_ns = INT64_MAX;
    for (int64_t now = began_ns; now < end_ns; now = now_ns()) {
        bool over = ended || (program->duration_s > 0 && (double)(now - began_ns) > program->duration_s * 1e9);
        if (over && end_ns == INT64_MAX) {
            end_ns = now + 2 * SECOND_NS;
            for (size_t i = 0; i < FISHER_MAX_STREAMS; i++) {
                device->stream[i].running = false;
            }
        }
        if (reset) {
            const struct device_options options = device->options;
            reset = 0;
            device_boot(device, &options, line, now);
        }
        device_work(device, now);
        if (over && (line->used == 0 || !line->host_there)) {
            return;
        }
        line_wait(line, now, device_next_ns(device, now));
    }
}

int main(int count, char **words) {
    static struct line line;
    static struct device device;
    struct program program = {.seed = 0, .buffer_bytes = DEFAULT_BUFFER};
    struct device_options options = {.rate_hz = 16000, .channels = 1, .streams = 1, .format = FISHER_INT16,
                                     .scale_mantissa = 1, .unit = "", .sensor = "ramp", .board = "emulator"};
    struct sigaction action = {.sa_handler = note};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    read_options(count, words, &program, &options, &line);
    choose_frame(&options);
    if (program.pcm != NULL) {
        read_pcm(&program, &options);
    }
    if (!line_open(&line, program.buffer_bytes, program.seed)) {
        return USAGE;
    }
    line.host_there = true; /* what is said before the port is opened waits there */
    if (program.boot_text != NULL) {
        char text[256];
        int length = snprintf(text, sizeof text, "%s\r\n", program.boot_text);
        line_send(&line, (uint8_t *)text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1, 0, false, now_ns());
        line.frames = 0;
    }
    device_boot(&device, &options, &line, now_ns());
    printf("{\"port\": \"%s\", \"link\": %s%s%s, \"boot_ns\": %" PRId64 "}\n", line.port, line.link ? "\"" : "",
           line.link ? line.link : "null", line.link ? "\"" : "", device.boot_ns);
    fflush(stdout);
    if (program.start) {
        device_start_all(&device, now_ns());
    }
    run(&device, &line, &program);
    print_counts(&device, &line);
    line_close(&line);
    return 0;
}
