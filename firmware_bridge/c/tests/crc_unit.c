/* The CRC-32 bit by bit, in place of the table of the library. */
#include "fisher_frame.h"

unsigned long crc_unit_bytes;

uint32_t FISHER_CRC32(uint32_t crc, const uint8_t *bytes, size_t count) {
    crc_unit_bytes += (unsigned long)count;
    while (count-- > 0) {
        crc ^= *bytes++;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ ((crc & 1u) != 0 ? 0xEDB88320u : 0u);
        }
    }
    return crc;
}
