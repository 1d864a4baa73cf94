/* What is going to happen, on a virtual clock: the earliest first, of equals the one that was posted
 * first, so that every run is the same run.
 *
 * Ownership: an event is a plain value; what `at` and `arg` point to is the poster's.
 * Units:     ns of virtual time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rs_sim_event {
    int64_t at;
    uint64_t seq; /* the order of posting; set by rs_sim_post */
    void (*fn)(struct rs_sim_event *e, void *arg);
    void *of;     /* what it is about */
    void *data;   /* what comes with it */
    uint64_t id;  /* .. */
    int64_t kind; /* .. and whatever else the poster wants to know */
};

struct rs_sim_events {
    struct rs_sim_event *heap;
    size_t n, cap;
    uint64_t seq;
};

void rs_sim_events_fini(struct rs_sim_events *q); /* what is left is dropped */
void rs_sim_post(struct rs_sim_events *q, struct rs_sim_event e);
/* False: nothing is due until `until`. */
bool rs_sim_take(struct rs_sim_events *q, int64_t until, struct rs_sim_event *ret);
int64_t rs_sim_next_at(const struct rs_sim_events *q); /* INT64_MAX: none */
