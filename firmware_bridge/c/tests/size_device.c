/* What a board links that sends and takes commands. */
#include "fisher_frame.h"

size_t use(struct fisher_writer *writer, struct fisher_sender *sender, uint8_t *buffer, const struct fisher_data *data,
           const int16_t *samples, const struct fisher_hello *hello, struct fisher_decoder *decoder,
           struct fisher_message *message);

size_t use(struct fisher_writer *writer, struct fisher_sender *sender, uint8_t *buffer, const struct fisher_data *data,
           const int16_t *samples, const struct fisher_hello *hello, struct fisher_decoder *decoder,
           struct fisher_message *message) {
    struct fisher_pong pong = {0, 0, 0};
    struct fisher_stats stats = {0, 0, 0, 0};
    uint32_t rate_mhz = 0;
    bool found;
    fisher_decoder_init(decoder, buffer, 64);
    fisher_decode(decoder, buffer, 64, message, &found);
    found = found && fisher_check_command(message, 1) == FISHER_NO_ERROR && fisher_parse_ping(message, &pong.token) && fisher_parse_rate(message, &rate_mhz);
    fisher_begin_data(writer, sender, buffer, 1024, 0, 0, data);
    fisher_put_int16(writer, samples, data->count);
    return fisher_end(writer) + fisher_write_hello(sender, buffer, 1024, hello) +
           fisher_write_pong(sender, buffer, 1024, &pong) + fisher_write_stats(sender, buffer, 1024, &stats) +
           fisher_write_error(sender, buffer, 1024, found, rate_mhz, "");
}
