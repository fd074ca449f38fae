/* The emulated device: streams that are sampled by its own clock, and the commands it carries out. */
#ifndef FISHER_DEVICE_H
#define FISHER_DEVICE_H

#include "../fisher_frame.h"
#include "line.h"

enum { DEVICE_COMMANDS = 64 };

struct device_options {
    double rate_hz;
    unsigned channels;
    unsigned streams;
    uint8_t format; /* enum fisher_format */
    uint32_t frame; /* samples of every channel in a frame */
    uint64_t count; /* samples of every channel in a run; 0: without end */
    double drift_ppm;
    bool fast; /* as fast as the host takes it, instead of in real time */
    const uint8_t *pcm; /* samples to replay; NULL: it counts */
    uint64_t pcm_samples; /* of every channel */
    int32_t scale_mantissa;
    int8_t scale_exponent;
    const char *unit;
    const char *sensor;
    const char *board;
};

struct stream {
    double rate_hz;
    double began_ns; /* of the run, on the device's clock */
    uint64_t index;
    uint8_t run;
    bool running;
};

struct command {
    int64_t due_ns;
    uint8_t type;
    uint8_t stream;
    uint32_t sequence;
    uint32_t rate_mhz;
    uint64_t token;
    enum fisher_error_code error;
};

struct device {
    struct device_options options;
    struct line *line;
    struct fisher_sender sender;
    struct fisher_decoder decoder;
    uint8_t decoder_buffer[64];
    struct stream stream[FISHER_MAX_STREAMS];
    struct command command[DEVICE_COMMANDS]; /* received, and not yet due */
    size_t commands_waiting;
    int64_t boot_ns;
    int64_t stats_due_ns;
    uint32_t boot;
    uint64_t samples;
    uint64_t dropped;
    uint64_t runs;
    uint64_t commands;
};

/* Begin: the device says HELLO. */
void device_boot(struct device *device, const struct device_options *options, struct line *line, int64_t now_ns);

/* Start all streams without being asked. */
void device_start_all(struct device *device, int64_t now_ns);

/* Take what the host has sent, do what is due, and send the frames whose samples are taken. */
void device_work(struct device *device, int64_t now_ns);

/* When there is something to do next. */
int64_t device_next_ns(const struct device *device, int64_t now_ns);

#endif
