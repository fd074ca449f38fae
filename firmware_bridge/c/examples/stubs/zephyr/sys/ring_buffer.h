/* What the Zephyr example uses of ring buffers, which one side fills and the other empties. */
#ifndef ZEPHYR_RING_BUFFER_STUB_H
#define ZEPHYR_RING_BUFFER_STUB_H

#include <stdint.h>

struct ring_buf {
    uint8_t *buffer;
    uint32_t size;
    uint32_t put;
    uint32_t taken;
};

#define RING_BUF_DECLARE(name, bytes)    \
    static uint8_t name##_buffer[bytes]; \
    static struct ring_buf name = {name##_buffer, bytes, 0, 0}

uint32_t ring_buf_space_get(struct ring_buf *ring);
uint32_t ring_buf_put(struct ring_buf *ring, const uint8_t *bytes, uint32_t count);
uint32_t ring_buf_get(struct ring_buf *ring, uint8_t *bytes, uint32_t size);
uint32_t ring_buf_get_claim(struct ring_buf *ring, uint8_t **bytes, uint32_t size);
int ring_buf_get_finish(struct ring_buf *ring, uint32_t count);

#endif
