// Runs the Arduino sketch on the simulated board: an AVR at 16 MHz with ARDUINO_ARCH_AVR, else a core with an ADC of 12 bits
// that counts to 1023 until it is told otherwise. Voltage n of A0 is 25 mV x (n modulo 100).
#include "Arduino.h"
#include "board.h"

static const uint32_t STEPS = 100, STEP_MV = 25;
static const size_t RING_BYTES = 64;

#if defined(ARDUINO_ARCH_AVR)
static const uint32_t REFERENCE = 5000, CALL_NS = 2000, CONVERSION_NS = 112000, INTERRUPT_NS = 4000;
#else
static const uint32_t REFERENCE = 3300, CALL_NS = 300, CONVERSION_NS = 10000, INTERRUPT_NS = 500;
#endif

struct Ring {
    uint8_t bytes[RING_BYTES];
    size_t put, taken;
    size_t waiting() const { return put - taken; }
};

SerialStub Serial;
static Ring received, sending;
static uint32_t voltage;
static int bits = 10;

// The clock of an AVR's UART is 2 MHz divided by a whole number; a receiver bears 2.5 %.
void SerialStub::begin(unsigned long baud) {
#if defined(ARDUINO_ARCH_AVR)
    unsigned long divider = (16000000 / 4 / baud - 1) / 2;
    double real = 2e6 / (double)(divider + 1);
    board_open((double)baud, real > 1.025 * (double)baud || real < 0.975 * (double)baud);
#else
    board_open((double)baud, false);
#endif
}

uint64_t board_next_ns() { return UINT64_MAX; }

void board_hardware() {}

void board_interrupt() {
    while (board_has_byte() || (sending.waiting() > 0 && board_can_put())) {
        uint8_t byte = 0;
        board_spend(INTERRUPT_NS);
        if (board_take(&byte) && received.waiting() < RING_BYTES) received.bytes[received.put++ % RING_BYTES] = byte;
        if (sending.waiting() > 0 && board_can_put()) board_put(sending.bytes[sending.taken++ % RING_BYTES]);
    }
}

int SerialStub::available() {
    board_spend(CALL_NS);
    return (int)received.waiting();
}

int SerialStub::read() { return received.waiting() > 0 ? received.bytes[received.taken++ % RING_BYTES] : -1; }

size_t SerialStub::write(const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        while (sending.waiting() == RING_BYTES) board_spend(CALL_NS);
        sending.bytes[sending.put++ % RING_BYTES] = bytes[i];
    }
    board_spend(CALL_NS);
    return count;
}

uint32_t micros() {
    board_spend(CALL_NS);
    return (uint32_t)board_us();
}

int analogRead(int pin) {
    board_spend(CONVERSION_NS);
    uint32_t millivolts = pin == A0 ? voltage++ % STEPS * STEP_MV : 1234;
    return (int)((millivolts << bits) / REFERENCE);
}

#if !defined(ARDUINO_ARCH_AVR)
void analogReadResolution(int wanted) { bits = wanted < 12 ? wanted : 12; }
#endif

#include "../examples/arduino/FisherStream/FisherStream.ino"

int main() {
    setup();
    for (;;) {
        loop();
        board_spend(CALL_NS);
    }
}
