/* Writes TZif files, so that a test needs none of the system's. */
#pragma once

#include "core/base/buf.h"

#include <stdint.h>
#include <string.h>

struct zone_change {
    int64_t at;
    unsigned type;
};

static inline void zone_put(struct rs_buf *out, uint64_t v, unsigned bytes)
{
    while (bytes-- > 0) {
        char c = (char)(v >> 8 * bytes);

        rs_buf_append(out, &c, 1);
    }
}

static inline void zone_header(struct rs_buf *out, unsigned times, unsigned types)
{
    static const char zeros[15];

    rs_buf_puts(out, "TZif2");
    rs_buf_append(out, zeros, 15);
    zone_put(out, 0, 4);
    zone_put(out, 0, 4);
    zone_put(out, 0, 4);
    zone_put(out, times, 4);
    zone_put(out, types, 4);
    zone_put(out, 4, 4);
}

/* `offsets` of the types; type 0 is before all changes. */
static inline void zone_file(struct rs_buf *out, const struct zone_change *changes, unsigned n,
                             const int32_t *offsets, unsigned types, const char *footer)
{
    static const char names[] = "XXX";

    zone_header(out, 0, 1);
    zone_put(out, 0, 6);
    rs_buf_append(out, names, 4);
    zone_header(out, n, types);
    for (unsigned i = 0; i < n; i++)
        zone_put(out, (uint64_t)changes[i].at, 8);
    for (unsigned i = 0; i < n; i++)
        zone_put(out, changes[i].type, 1);
    for (unsigned i = 0; i < types; i++) {
        zone_put(out, (uint32_t)offsets[i], 4);
        zone_put(out, 0, 2);
    }
    rs_buf_append(out, names, 4);
    rs_buf_printf(out, "\n%s\n", footer);
}
