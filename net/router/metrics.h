/* The data plane's metric families (names and labels of Ray Serve), and caches of their series, so
 * that the hot path looks nothing up by text.
 *
 * Thread: families are shared; a cache belongs to one lane.
 */
#pragma once

#include "core/metrics/metrics.h"
#include "core/model/tally.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct rs_router_metrics {
    /* HTTP */
    struct rs_family *http_refused; /* by cause */
    atomic_bool *tell_refused;      /* the control thread wants to be told of the next one */
    struct rs_family *access_log_dropped;
    struct rs_family *http_requests, *http_errors, *deployment_errors, *http_latency, *http_ongoing;
    /* deployments and replicas */
    struct rs_family *queued, *handle_requests, *fallbacks, *dropped, *waits, *interrupted;
    /* declared graphs, by stage */
    struct rs_family *stage_requests, *stage_errors, *stage_latency, *stage_retries,
        *stage_fallbacks, *stage_cache, *stage_dropped, *graph_bytes;
    struct rs_family *replica_requests, *replica_errors, *replica_latency, *replica_processing;
};

void rs_router_metrics_init(struct rs_router_metrics *f, struct rs_metrics *m);

/* What a lane tells the control thread about a replica or a deployment. */
struct rs_figures {
    atomic_uint in_flight, queued;
    atomic_uint models; /* of a replica: that it has loaded */
    atomic_ullong done, errors;
    /* Of a deployment: requests that wait or are under way, since when, and the integral up to then in
     * request microseconds. `turn` is odd while the lane writes them. */
    atomic_uint turn, load;
    atomic_llong load_at; /* ns */
    atomic_ullong load_us;
    atomic_ullong dropped[3]; /* of a deployment: by enum rs_drop */
    atomic_ullong fallbacks;  /* of a deployment: choices that its own router did not make */
    atomic_uint alarm_at;     /* the control thread wants to be told of so much load; 0: of none */
    /* Of a replica: requests that it has begun to answer, its own calls that are not answered; what came of
     * it (answers begun, pieces of them, ends), requests that were cancelled, and how long those took
     * that it answered (core/model/tally.h). */
    atomic_uint open, calls;
    atomic_ullong moved, given_up;
    atomic_uint took[RS_TALLY_BUCKETS];
};

/* By the one thread that writes it: no locked instruction. */
#define RS_FIGURE_ADD(figure, n)                                                                   \
    atomic_store_explicit(&(figure), atomic_load_explicit(&(figure), memory_order_relaxed) + (n),  \
                          memory_order_relaxed)

/* A replica's series, one entry per route it is reached by. */
struct rs_series_cache {
    struct rs_series_cache *next;
    char *route;
    size_t route_len;
    struct rs_series *requests, *latency;
};
