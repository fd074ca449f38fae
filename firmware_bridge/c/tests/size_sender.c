/* What a board that only sends links. */
#include "fisher_frame.h"

size_t use(struct fisher_writer *writer, struct fisher_sender *sender, uint8_t *buffer, const struct fisher_data *data,
           const int16_t *samples, const struct fisher_hello *hello);

size_t use(struct fisher_writer *writer, struct fisher_sender *sender, uint8_t *buffer, const struct fisher_data *data,
           const int16_t *samples, const struct fisher_hello *hello) {
    fisher_begin_data(writer, sender, buffer, 1024, 0, 0, data);
    fisher_put_int16(writer, samples, data->count);
    return fisher_end(writer) + fisher_write_hello(sender, buffer, 1024, hello);
}
