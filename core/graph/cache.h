/* Answers by key for a while: bounded, least recently used first out, and who works on a key now.
 *
 * Bounds:    `max_bytes` over all that is kept, keys included; an answer of more than a quarter of it
 *            is not kept. Keys that are worked on are bounded by who works: see flow.h.
 * Ownership: values are counted; the cache holds a reference to each that it keeps.
 */
#pragma once

#include "core/base/hash.h"
#include "core/base/list.h"
#include "core/graph/value.h"

struct rs_cache_entry {
    struct rs_cache_entry *next; /* in its bucket */
    struct rs_list link;         /* in the order of use, if it has a value */
    struct rs_hash_sum key;
    struct rs_value *value; /* NULL: it is worked on */
    int64_t until;
    void *leader;           /* who works on it */
    struct rs_list waiting; /* who waits for it; the caller's */
};

struct rs_cache {
    struct rs_cache_entry **buckets;
    size_t size, count;
    struct rs_list used; /* the least recently used first */
    uint64_t bytes, max_bytes;
};

void rs_cache_init(struct rs_cache *c, uint64_t max_bytes);
void rs_cache_fini(struct rs_cache *c); /* nobody works on or waits for anything */

/* The entry of a key; a new one without a value and leader if there is none or it is too old. */
struct rs_cache_entry *rs_cache_at(struct rs_cache *c, struct rs_hash_sum key, int64_t now);
/* What was worked on is there; kept until then, if it fits. The entry may go, others may. Nobody
 * waits for it any more. */
void rs_cache_keep(struct rs_cache *c, struct rs_cache_entry *e, struct rs_value *value,
                   int64_t until);
/* There will be no value, and nobody waits. */
void rs_cache_drop(struct rs_cache *c, struct rs_cache_entry *e);
