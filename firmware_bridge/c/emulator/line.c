/* The line of the emulated device; the contracts are in line.h. */
#define _GNU_SOURCE
#include "line.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static const int64_t SECOND_NS = 1000000000;
static const int64_t NO_HOST_NS = 20000000;

static bool make_link(struct line *line) {
    char fresh[PATH_MAX];
    int length = snprintf(fresh, sizeof fresh, "%s.%ld", line->link, (long)getpid());
    if (length < 0 || (size_t)length >= sizeof fresh || symlink(line->port, fresh) != 0 || rename(fresh, line->link) != 0) {
        fprintf(stderr, "error: the link %s cannot be made: %s\n", line->link, strerror(errno));
        return false;
    }
    return true;
}

/* A raw slave passes every byte; the setting lasts as long as the master is open. */
static bool make_raw(const char *port) {
    struct termios settings;
    int slave = open(port, O_RDWR | O_NOCTTY);
    bool done = slave >= 0 && tcgetattr(slave, &settings) == 0;
    if (done) {
        cfmakeraw(&settings);
        done = tcsetattr(slave, TCSANOW, &settings) == 0;
    }
    if (slave >= 0) {
        close(slave);
    }
    return done;
}

static void draw_flip(struct line *line) {
    double chance = line_chance(line);
    line->bits_to_flip = line->bitflip > 0 ? (int64_t)(log1p(-chance) / log1p(-line->bitflip)) : INT64_MAX;
}

bool line_open(struct line *line, size_t buffer_bytes, uint64_t seed) {
    line->chance = seed * 0x9E3779B97F4A7C15u + 0x1234567u;
    line->size = buffer_bytes;
    line->ring = malloc(buffer_bytes);
    line->master = posix_openpt(O_RDWR | O_NOCTTY);
    if (line->ring == NULL || line->master < 0 || grantpt(line->master) != 0 || unlockpt(line->master) != 0 ||
        ptsname_r(line->master, line->port, sizeof line->port) != 0 || !make_raw(line->port) ||
        fcntl(line->master, F_SETFL, O_NONBLOCK) != 0) {
        fprintf(stderr, "error: no pty can be opened: %s\n", strerror(errno));
        return false;
    }
    draw_flip(line);
    return line->link == NULL || make_link(line);
}

double line_chance(struct line *line) {
    uint64_t mixed; /* SplitMix64 */
    line->chance += 0x9E3779B97F4A7C15u;
    mixed = line->chance;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    return (double)((mixed ^ (mixed >> 31)) >> 11) / 9007199254740992.0;
}

bool line_has_room(const struct line *line, size_t bytes) {
    return line->size - line->used >= bytes && line->packet_count < LINE_PACKETS;
}

/* Flip the bits of a frame that it is the turn of; whether there was one. */
static bool flip(struct line *line, uint8_t *frame, size_t bytes) {
    int64_t place = line->bits_to_flip, bits = 8 * (int64_t)bytes;
    bool flipped = false;
    while (place < bits) {
        frame[place / 8] ^= (uint8_t)(1u << (place % 8));
        line->bits_flipped++;
        flipped = true;
        draw_flip(line);
        place += 1 + line->bits_to_flip;
    }
    line->bits_to_flip = place - bits;
    return flipped;
}

void line_send(struct line *line, uint8_t *frame, size_t bytes, uint64_t samples, bool may_be_hurt, int64_t now_ns) {
    int64_t due_ns = now_ns + (int64_t)(line_chance(line) * (double)line->jitter_ns);
    size_t place = (line->first + line->used) % line->size;
    size_t until_end = line->size - place < bytes ? line->size - place : bytes;
    line->frames++;
    if (may_be_hurt && line->damaging && line->loss > 0 && line_chance(line) < line->loss) {
        line->frames_lost++;
        line->samples_lost += samples;
        return;
    }
    if (may_be_hurt && line->damaging && line->bitflip > 0 && flip(line, frame, bytes)) {
        line->frames_flipped++;
        line->samples_lost += samples;
    }
    line->last_due_ns = due_ns > line->last_due_ns ? due_ns : line->last_due_ns;
    line->packets[(line->first_packet + line->packet_count++) % LINE_PACKETS] = (struct packet){line->last_due_ns, bytes};
    memcpy(line->ring + place, frame, until_end);
    memcpy(line->ring, frame + until_end, bytes - until_end);
    line->used += bytes;
}

/* Bytes at the front that are due, and lie in one piece. */
static size_t due_bytes(const struct line *line, int64_t now_ns) {
    size_t bytes = 0;
    for (size_t i = 0; i < line->packet_count; i++) {
        const struct packet *packet = &line->packets[(line->first_packet + i) % LINE_PACKETS];
        if (packet->due_ns > now_ns) {
            break;
        }
        bytes += packet->bytes;
    }
    return bytes < line->size - line->first ? bytes : line->size - line->first;
}

static void forget(struct line *line, size_t bytes) {
    line->first = (line->first + bytes) % line->size;
    line->used -= bytes;
    while (bytes > 0) {
        struct packet *packet = &line->packets[line->first_packet];
        size_t taken = packet->bytes < bytes ? packet->bytes : bytes;
        packet->bytes -= taken;
        bytes -= taken;
        if (packet->bytes == 0) {
            line->first_packet = (line->first_packet + 1) % LINE_PACKETS;
            line->packet_count--;
        }
    }
}

void line_flush(struct line *line, int64_t now_ns) {
    for (size_t bytes = due_bytes(line, now_ns); bytes > 0; bytes = due_bytes(line, now_ns)) {
        ssize_t written;
        if (!line->host_there) {
            forget(line, bytes); /* nobody listens, as on a UART */
            continue;
        }
        written = write(line->master, line->ring + line->first, bytes);
        if (written <= 0) {
            return;
        }
        forget(line, (size_t)written);
    }
}

int64_t line_next_ns(const struct line *line) {
    return line->packet_count > 0 ? line->packets[line->first_packet].due_ns : INT64_MAX;
}

size_t line_read(struct line *line, uint8_t *bytes, size_t size) {
    ssize_t count = read(line->master, bytes, size);
    return count > 0 ? (size_t)count : 0;
}

void line_wait(struct line *line, int64_t now_ns, int64_t until_ns) {
    struct pollfd ready = {line->master, POLLIN, 0};
    int64_t wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    struct timespec timeout;
    if (line->host_there && line_next_ns(line) <= now_ns) {
        ready.events |= POLLOUT; /* what is due did not go: wait until the host reads */
        wait_ns = until_ns > now_ns ? wait_ns : SECOND_NS / 1000;
    }
    timeout = (struct timespec){wait_ns / SECOND_NS, wait_ns % SECOND_NS};
    if (ppoll(&ready, 1, &timeout, NULL) <= 0) {
        return;
    }
    line->host_there = (ready.revents & POLLHUP) == 0;
    if (!line->host_there) { /* a pty without a host is always ready */
        wait_ns = wait_ns < NO_HOST_NS ? wait_ns : NO_HOST_NS;
        timeout = (struct timespec){wait_ns / SECOND_NS, wait_ns % SECOND_NS};
        nanosleep(&timeout, NULL);
    }
}

void line_close(struct line *line) {
    char target[sizeof line->port] = {0};
    if (line->link != NULL && readlink(line->link, target, sizeof target - 1) > 0 && strcmp(target, line->port) == 0) {
        unlink(line->link);
    }
    close(line->master);
    free(line->ring);
}
