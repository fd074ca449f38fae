/* How much memory the parts need: read from the assembly, since nothing runs. */
#include "fisher_frame.h"

extern const unsigned size_of_sender, size_of_writer, size_of_decoder, size_of_frame_of_256_int16;
const unsigned size_of_sender = sizeof(struct fisher_sender);
const unsigned size_of_writer = sizeof(struct fisher_writer);
const unsigned size_of_decoder = sizeof(struct fisher_decoder);
const unsigned size_of_frame_of_256_int16 = FISHER_DATA_FRAME_BYTES(256, 2);
