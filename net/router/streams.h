/* Map from stream numbers to what they stand for: open addressing, no allocation while it fits.
 *
 * Ownership: values are the caller's, never NULL. {0} is a valid empty map.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct rs_stream_entry {
    uint64_t stream; /* 0: free */
    void *value;
};

struct rs_streams {
    struct rs_stream_entry *at;
    size_t size, count; /* size: a power of two */
};

void rs_streams_fini(struct rs_streams *m);
void rs_streams_put(struct rs_streams *m, uint64_t stream, void *value);
void *rs_streams_get(const struct rs_streams *m, uint64_t stream); /* NULL: none */
void *rs_streams_take(struct rs_streams *m, uint64_t stream);      /* removed; NULL: none */
