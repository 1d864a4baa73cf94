/* How many requests each key may make: a token bucket per key. Pure.
 *
 * A bucket is one number, when it is full again: a request needs it to be full within (burst - 1)
 * intervals, and puts it off by one interval. So any stretch of time t admits at most burst + t /
 * interval requests of a key, to the nanosecond.
 *
 * Memory: a table of 16 bytes per key that grows to `max_slots`. A full bucket is the same as none, and
 *         its place is taken by the next key. Where even so there is no room, keys share one bucket:
 *         then some are refused that might have been admitted, never the other way round.
 * Units:  monotonic nanoseconds; above 0; a clock that goes back stands still.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct rs_rate_slot {
    uint64_t key;
    int64_t full_at; /* 0: the slot was never used */
};

struct rs_rate {
    int64_t interval; /* between requests in the long run */
    int64_t slack;    /* (burst - 1) intervals */
    int64_t now;
    struct rs_rate_slot *slots;
    size_t n_slots, used, max_slots; /* powers of two */
    struct rs_rate_slot shared;      /* of the keys that there is no room for */
    size_t patience;                 /* of those to come before room is looked for again */
    uint64_t crowded;                /* requests that went to `shared` */
};

/* `max_slots` is a power of two >= 16. */
void rs_rate_init(struct rs_rate *r, double requests_per_s, unsigned burst, size_t max_slots);
void rs_rate_fini(struct rs_rate *r);

/* A request of `key`, which is well mixed. 0: admitted; otherwise how long to wait, and it was not
 * counted. */
int64_t rs_rate_take(struct rs_rate *r, uint64_t key, int64_t now);
