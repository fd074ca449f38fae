/* The board of board.h, on the pty of the emulator. */
#define _GNU_SOURCE
#include "board.h"

#include "emulator/line.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static struct line line;
static int64_t opened_ns;

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void board_open(void) {
    if (!line_open(&line, 4096, 0)) {
        exit(2);
    }
    opened_ns = now_ns();
    printf("{\"port\": \"%s\", \"boot_ns\": %lld}\n", line.port, (long long)opened_ns);
    fflush(stdout);
}

uint64_t board_us(void) {
    return (uint64_t)(now_ns() - opened_ns) / 1000;
}

bool board_read(uint8_t *byte) {
    return line_read(&line, byte, 1) == 1;
}

void board_write(const uint8_t *bytes, size_t count) {
    for (int tries = 0; count > 0 && tries < 1000; tries++) {
        ssize_t written = write(line.master, bytes, count);
        if (written > 0) {
            bytes += written;
            count -= (size_t)written;
        } else {
            struct pollfd ready = {line.master, POLLOUT, 0};
            poll(&ready, 1, 1);
        }
    }
}

void board_wait(void) {
    struct pollfd ready = {line.master, POLLIN, 0};
    struct timespec pause = {0, 200000};
    if (poll(&ready, 1, 0) == 0 || (ready.revents & POLLHUP) != 0) {
        nanosleep(&pause, NULL);
    }
}
