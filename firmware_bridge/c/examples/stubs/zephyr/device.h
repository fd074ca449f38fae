/* What the Zephyr example uses of devices. */
#ifndef ZEPHYR_DEVICE_STUB_H
#define ZEPHYR_DEVICE_STUB_H

struct device {
    const char *name;
};

extern const struct device stub_fisher_uart, stub_accel0;

#define DT_ALIAS(name) stub_##name
#define DEVICE_DT_GET(node) (&node)

#endif
