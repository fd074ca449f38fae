/* What the Arduino example uses of the core, so that any compiler can check it. */
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
static const int A0 = 14, A1 = 15;

#endif
