/* What the Zephyr example uses of sensors. */
#ifndef ZEPHYR_SENSOR_STUB_H
#define ZEPHYR_SENSOR_STUB_H

#include <stdint.h>
#include <zephyr/device.h>

enum sensor_channel { SENSOR_CHAN_ACCEL_XYZ = 3 };

struct sensor_value {
    int32_t val1;
    int32_t val2;
};

int sensor_sample_fetch(const struct device *sensor);
int sensor_channel_get(const struct device *sensor, enum sensor_channel channel, struct sensor_value *value);

#endif
