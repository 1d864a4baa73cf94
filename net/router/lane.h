/* A lane: one thread of the data plane, with its loop, its HTTP server, and the deployments that are
 * at home on it.
 *
 * Thread: everything is called on the lane's own thread, but what says otherwise. The control thread
 *         reaches a lane by posting to its loop (dataplane.c).
 */
#pragma once

#include "core/base/map.h"
#include "core/loop/loop.h"
#include "net/router/metrics.h"
#include "net/router/pool.h"
#include "net/router/request.h"
#include "net/router/route.h"

#include <pthread.h>
#include <stdatomic.h>

struct rs_dataplane;
struct rs_http_server;

struct rs_lane {
    struct rs_dataplane *dataplane;
    unsigned index;
    struct rs_loop *loop;
    pthread_t thread;
    bool started;
    const struct rs_router_metrics *metrics;
    struct rs_lane_memory memory;
    struct rs_route_table *routes;
    struct rs_map pools;    /* by rs_route_key: deployments at home here */
    struct rs_map replicas; /* by id: struct rs_backend */
    struct rs_map peers;    /* by address: struct rs_peer */
    struct rs_list guests;  /* connections that other nodes made */
    struct rs_list graphs;  /* at home here: struct rs_live_graph */
    struct rs_http_server *http;
    struct rs_buf key;   /* scratch */
    atomic_uint ongoing; /* HTTP requests under way here; written by this lane */
};

RS_MUST_CHECK int rs_lane_init(struct rs_lane *l, struct rs_dataplane *d, unsigned index,
                               const struct rs_router_metrics *metrics, struct rs_error *err);
/* Ends everything that is there: connections, requests, pools. On the lane's thread, or when that has
 * ended. May be called twice. */
void rs_lane_close(struct rs_lane *l);
/* The thread has ended; posted calls have been run dry. */
void rs_lane_fini(struct rs_lane *l);

/* Takes the request on for a deployment, wherever that is at home. Replies may come before this
 * returns. */
void rs_lane_submit(struct rs_lane *l, struct rs_request *r, const char *app,
                    const char *deployment);
/* The same where the route table's entry is at hand. */
void rs_lane_submit_to(struct rs_lane *l, struct rs_request *r, struct rs_route_target *to);
/* The same on the home lane. */
void rs_lane_submit_here(struct rs_lane *l, struct rs_request *r, const char *app,
                         const char *deployment);
/* The pool of a deployment that is at home here; made at first use. */
struct rs_pool *rs_lane_pool(struct rs_lane *l, const char *app, const char *deployment,
                             struct rs_figures *figures);
/* An HTTP request got no answer of the application; told if the control thread asked for it. */
void rs_lane_refused(const struct rs_lane *l);
/* The next route table; taken. Pools that it does not name and that are empty go. */
void rs_lane_route(struct rs_lane *l, struct rs_route_table *t);
/* Ends a backend and frees it; NULL is fine. `why`: how it ended, for those whose requests it had. */
void rs_lane_drop(struct rs_lane *l, struct rs_backend *b, const char *why);
