/* When a queue is too long, and how fast it gets shorter. Pure: no clock, no memory.
 *
 * Standing delay: the age of the oldest that waits, looked at whenever something happens to the queue.
 *           One that stayed above `target` through a whole `interval` is no burst: more comes than is
 *           done, and shedding is on until the delay is below half of the target.
 * Drain:    how many requests a second end while others wait. What ends beside an empty queue says
 *           nothing of how fast it could drain.
 * Span:     how long requests take, as TCP reckons round trips.
 * Units:    ns, but for rs_drain_wait: whole seconds, as in Retry-After.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct rs_shed {
    int64_t target, interval; /* target 0: never */
    int64_t above_since;      /* 0: it is not above */
    bool on;
};

/* The delay is this now; 0: nobody waits, or nothing could take them. */
void rs_shed_observe(struct rs_shed *s, int64_t delay, int64_t now);

enum { RS_DRAIN_WAIT_MAX = 60 }; /* s: more replicas may be there by then */

struct rs_drain {
    double rate;    /* a second, of the last windows; 0: not known */
    int64_t since;  /* the window's begin; 0: none */
    unsigned count; /* ended in it */
};

/* How long things take: the mean and the mean deviation of the last ones, ns. */
struct rs_span {
    int64_t mean, deviation;
};

void rs_span_add(struct rs_span *s, int64_t took);
/* What most of them take at most. 0: not known. */
int64_t rs_span_most(const struct rs_span *s);

/* A request ended; `waiting`: others wait. */
void rs_drain_ended(struct rs_drain *d, bool waiting, int64_t now);
/* How long until `queued` requests will have left, 1 to RS_DRAIN_WAIT_MAX. */
unsigned rs_drain_wait(const struct rs_drain *d, unsigned queued, int64_t now);
