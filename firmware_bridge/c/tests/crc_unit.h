/* A FISHER_CONFIG_H of a board with a CRC unit: crc_unit.c plays the unit. */
#ifndef FISHER_TEST_CRC_UNIT_H
#define FISHER_TEST_CRC_UNIT_H

#define FISHER_CRC32 crc_unit

extern unsigned long crc_unit_bytes; /* that went through the unit */

#endif
