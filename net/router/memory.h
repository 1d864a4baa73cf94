/* How many bytes the data plane holds for requests that are under way, and when that is enough.
 *
 * Each lane counts what it takes and gives back, without locks; in steps of RS_MEMORY_STEP it tells the sum
 * of all lanes. While that is over the limit new HTTP requests are refused with 503; what was taken on goes
 * on, whatever it needs: bodies of bounded length, answers with a window of credit. So the process
 * holds the limit, RS_MEMORY_STEP for each lane, and what the requests that are already there may
 * still bring.
 * Counted:   bodies of requests that wait, or that were sent and are kept to be sent once more; pieces of
 *            answers that clients have not taken.
 * Thread:    a lane's own; rs_memory_full by any.
 */
#pragma once

#include "core/metrics/metrics.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum rs_held { RS_HELD_WAITING, RS_HELD_REPLAY, RS_HELD_ANSWER, RS_HELD_KINDS };
enum { RS_MEMORY_STEP = 256 << 10 };

/* Of the process. */
struct rs_memory {
    atomic_llong told;
    int64_t limit;
};

/* Of a lane. */
struct rs_lane_memory {
    struct rs_memory *all;
    int64_t held[RS_HELD_KINDS], sum, told;
    struct rs_series *shown[RS_HELD_KINDS];
};

/* `limit` in bytes; 0: a quarter of rs_machine_memory. */
void rs_memory_init(struct rs_memory *m, uint64_t limit, struct rs_metrics *metrics);
void rs_lane_memory_init(struct rs_lane_memory *m, struct rs_memory *all, unsigned lane,
                         struct rs_metrics *metrics);
/* `n` may be negative. */
void rs_memory_add(struct rs_lane_memory *m, enum rs_held what, int64_t n);

static inline bool rs_memory_full(const struct rs_lane_memory *m)
{
    return atomic_load_explicit(&m->all->told, memory_order_relaxed) >= m->all->limit;
}
