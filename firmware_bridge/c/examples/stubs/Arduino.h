/* What the Arduino example uses of the core, so that any compiler can check it: of an AVR with ARDUINO_ARCH_AVR. */
#ifndef ARDUINO_STUB_H
#define ARDUINO_STUB_H

#include <stddef.h>
#include <stdint.h>

struct SerialStub {
    void begin(unsigned long baud);
    int available();
    int read();
    size_t write(const uint8_t *bytes, size_t count);
};

extern SerialStub Serial;
uint32_t micros();
int analogRead(int pin);
#if !defined(ARDUINO_ARCH_AVR)
void analogReadResolution(int bits);
#endif
static const int A0 = 14, A1 = 15;

#endif
