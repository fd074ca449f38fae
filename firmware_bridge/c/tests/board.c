/* The board of board.h. */
#define _GNU_SOURCE
#include "board.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { WATCHDOG_S = 20, LONGEST_MESSAGE = 1 << 16 };

static uint64_t now_ns, until_ns, byte_ns;
static uint8_t incoming[LONGEST_MESSAGE], outgoing[LONGEST_MESSAGE];
static size_t incoming_count, incoming_taken, outgoing_count;
static uint64_t arrives_ns; /* of the next byte of `incoming` */
static uint64_t leaves_ns; /* of the byte that is shifted out */
static uint8_t garbled;
static uint8_t receive_register, transmit_register, shift_register;
static bool receive_full, transmit_full, shifting, interrupting;

static void read_all(void *bytes, size_t count) {
    if (count > 0 && fread(bytes, 1, count, stdin) != count) {
        exit(0); /* the host has gone */
    }
}

static void give_up(int number) {
    static const char said[] = "error: the example waits for something while no time passes\n";
    (void)number;
    _exit(write(STDERR_FILENO, said, sizeof said - 1) > 0 ? 3 : 4);
}

/* Hear until when to run, and what the host sends from now on. */
static void hear(void) {
    uint32_t count;
    alarm(0);
    read_all(&until_ns, sizeof until_ns);
    read_all(&count, sizeof count);
    if (incoming_taken == incoming_count) {
        incoming_taken = incoming_count = 0;
        arrives_ns = now_ns + byte_ns;
    }
    if (count > sizeof incoming - incoming_count) {
        exit(5);
    }
    read_all(incoming + incoming_count, count);
    incoming_count += count;
    alarm(WATCHDOG_S);
}

static void answer(void) {
    uint32_t count = (uint32_t)outgoing_count;
    fwrite(&count, sizeof count, 1, stdout);
    fwrite(outgoing, 1, outgoing_count, stdout);
    fflush(stdout);
    outgoing_count = 0;
}

void board_open(double baud, bool wrong_clock) {
    byte_ns = (uint64_t)(10e9 / baud + 0.5);
    garbled = wrong_clock ? 0x5a : 0;
    signal(SIGALRM, give_up);
    hear();
}

uint64_t board_ns(void) {
    return now_ns;
}

uint64_t board_us(void) {
    return now_ns / 1000;
}

static void interrupt(void) {
    board_hardware();
    if (!interrupting) {
        interrupting = true;
        board_interrupt();
        interrupting = false;
        board_hardware();
    }
}

static void shift_next(void) {
    shifting = transmit_full;
    if (transmit_full) {
        shift_register = transmit_register;
        transmit_full = false;
        leaves_ns = now_ns + byte_ns;
    }
}

static void happen(void) {
    if (incoming_taken < incoming_count && arrives_ns <= now_ns) {
        receive_register = incoming[incoming_taken++] ^ garbled;
        receive_full = true;
        arrives_ns += byte_ns;
    }
    if (shifting && leaves_ns <= now_ns) {
        if (outgoing_count == sizeof outgoing) {
            exit(6);
        }
        outgoing[outgoing_count++] = shift_register ^ garbled;
        shift_next();
    }
}

static uint64_t next_ns(uint64_t most_ns) {
    uint64_t next = until_ns < most_ns ? until_ns : most_ns;
    next = board_next_ns() < next ? board_next_ns() : next;
    next = shifting && leaves_ns < next ? leaves_ns : next;
    return incoming_taken < incoming_count && arrives_ns < next ? arrives_ns : next;
}

void board_spend(uint64_t ns) {
    uint64_t end_ns = now_ns + ns;
    interrupt();
    while (now_ns < end_ns) {
        uint64_t next = next_ns(end_ns);
        now_ns = next > now_ns ? next : now_ns;
        happen();
        interrupt();
        while (now_ns >= until_ns) {
            answer();
            hear();
        }
    }
}

bool board_has_byte(void) {
    return receive_full;
}

bool board_take(uint8_t *byte) {
    bool taken = receive_full;
    if (taken) {
        *byte = receive_register;
    }
    receive_full = false;
    return taken;
}

bool board_can_put(void) {
    return !transmit_full;
}

bool board_is_idle(void) {
    return !transmit_full && !shifting;
}

void board_put(uint8_t byte) {
    if (transmit_full) {
        exit(7);
    }
    transmit_register = byte;
    transmit_full = true;
    if (!shifting) {
        shift_next();
    }
}
