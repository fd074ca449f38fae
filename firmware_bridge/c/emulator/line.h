/* The line of the emulated device: a pty with a buffer in front of it that delays, loses and damages frames. */
#ifndef FISHER_LINE_H
#define FISHER_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LINE_PACKETS = 8192 };

struct packet {
    int64_t due_ns;
    size_t bytes;
};

struct line {
    int master;
    bool host_there;
    char port[128];
    const char *link; /* NULL: none */
    double loss; /* probability of a frame */
    double bitflip; /* probability of a bit */
    int64_t jitter_ns;
    bool damaging;
    uint64_t chance;
    int64_t bits_to_flip; /* bits until the next one that is flipped */
    uint8_t *ring;
    size_t size;
    size_t first;
    size_t used;
    struct packet packets[LINE_PACKETS]; /* a ring as well */
    size_t first_packet;
    size_t packet_count;
    int64_t last_due_ns;
    uint64_t frames;
    uint64_t frames_lost;
    uint64_t frames_flipped;
    uint64_t bits_flipped;
    uint64_t samples_lost;
};

/* Open a pty in raw mode and name it by `link`, if there is one; false with a message on stderr when that fails. */
bool line_open(struct line *line, size_t buffer_bytes, uint64_t seed);

/* A random number from 0 to just below 1. */
double line_chance(struct line *line);

/* Whether a frame of so many bytes finds room now. */
bool line_has_room(const struct line *line, size_t bytes);

/* Put a frame into the buffer, to leave after the delay of the line. A frame that may be hurt may be lost instead, with
 * the samples in it. The caller has checked that there is room. */
void line_send(struct line *line, uint8_t *frame, size_t bytes, uint64_t samples, bool may_be_hurt, int64_t now_ns);

/* Write what is due, as far as the host takes it. */
void line_flush(struct line *line, int64_t now_ns);

/* When something is due next; INT64_MAX when nothing waits. */
int64_t line_next_ns(const struct line *line);

/* Read what the host has sent; 0 when there is nothing. */
size_t line_read(struct line *line, uint8_t *bytes, size_t size);

/* Wait for the host, or until a time; signals end the wait. */
void line_wait(struct line *line, int64_t now_ns, int64_t until_ns);

/* Remove the link, if it is still ours. */
void line_close(struct line *line);

#endif
