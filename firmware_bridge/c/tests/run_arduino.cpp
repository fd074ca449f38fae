// Runs the Arduino sketch on this machine: its input counts, modulo 1024.
#include "Arduino.h"
#include "board.h"

SerialStub Serial;
static int next_value;
static int waiting = -1;

void SerialStub::begin(unsigned long) { board_open(); }

int SerialStub::available() {
    uint8_t byte;
    if (waiting < 0 && board_read(&byte)) waiting = byte;
    return waiting >= 0;
}

int SerialStub::read() {
    int byte = waiting;
    waiting = -1;
    return byte;
}

size_t SerialStub::write(const uint8_t *bytes, size_t count) {
    board_write(bytes, count);
    return count;
}

uint32_t micros() { return (uint32_t)board_us(); }

int analogRead(int) { return next_value++ % 1024; }

#include "../examples/arduino/FisherStream/FisherStream.ino"

int main() {
    setup();
    for (;;) {
        loop();
        board_wait();
    }
}
