/* The data plane of one node: lanes, queues, replicas' sockets, and the HTTP ingress on top.
 *
 * Lanes are threads, each with an event loop, one HTTP listener (SO_REUSEPORT) and its share of the
 * connections. A deployment lives on one home lane: its queue, its replicas' connections and slots are
 * touched by that thread only, so limits are exact without a lock. A request that enters on another
 * lane is posted to the home lane, its answer is posted back.
 *
 * Thread:    every function here is called on the control thread (the loop given to _new). Events
 *            are delivered on the control thread too.
 * Ownership: strings and JSON are copied or referenced; descriptors are taken.
 * Layer:     net may include core; never sched.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/loop/loop.h"
#include "core/metrics/metrics.h"
#include "core/model/tally.h"
#include "net/http/tls.h"
#include "net/wire/frame.h"

#include <jansson.h>
#include <netinet/in.h>

struct rs_dataplane;

struct rs_ingress_conf {
    const char *host;           /* "127.0.0.1"; NULL: no HTTP listener on this node */
    uint16_t port;              /* 0: any free one; see rs_dataplane_port */
    const char *root_path;      /* "" or "/base" */
    int64_t request_timeout;    /* ns, 0: none */
    int64_t keep_alive_timeout; /* ns */
    int64_t header_timeout; /* ns from a request's first byte to the end of its header; 0: none */
    /* Bytes of a request's body that are read before it is dispatched; longer ones, and those of unknown
     * length, are streamed when at most 1 MiB is there. */
    size_t buffer_body;
    size_t max_body;        /* bytes; more is 413; 0: no limit */
    size_t max_header;      /* bytes; more is 431 */
    struct rs_tls_conf tls; /* of HTTPS; its files are read at once, and when they change */
    bool proxy_protocol;    /* connections from trusted proxies begin with a PROXY header */
    const json_t
        *trusted_proxies; /* array of addresses and networks; NULL: 127.0.0.1; read at once */
    unsigned max_connections;
    unsigned lanes; /* 0: one per four cores */
    /* Bytes that may be held for requests under way before new ones are refused; 0: a quarter of the
     * machine's memory. */
    uint64_t buffer_memory;
    uint64_t object_store; /* bytes that objects may take; 0: 30 % of the machine's memory */
    /* Who this node is to other nodes and in metrics; NULL is "". */
    const char *node_id, *node_ip;
    const char *access_log; /* a file, "-": standard output; NULL: none */
    bool access_log_json;   /* else in the form of Ray Serve's proxy */
};

/* Beside Ray's keys of a request_router_config: how long it may take to answer, in seconds, 0.1. */
#define RS_ROUTER_PATIENCE "rserve_patience_s"

/* What a node tells the routers about one deployment. */
struct rs_route_deployment {
    const char *app, *name;
    int max_ongoing;         /* per replica */
    int max_queued;          /* -1: no limit */
    int backpressure_status; /* 503 or 429 */
    double retry_after_s;    /* < 0: what the queue measures */
    /* ns. ageing: a request that waits gains a class; 0: the default. target 0: nothing is shed. limit
     * of its requests, 0: what the ingress says */
    int64_t priority_ageing, shed_target, shed_interval, request_timeout;
    bool
        by_value; /* not Python, or not on this node alone: calls cannot name objects of this node */
    const json_t *router; /* request_router_config of one of its own; NULL: the built-in one */
    const char *fresh;    /* a new version that is counted apart from all others; NULL: none */
    double fresh_share;   /* of the requests that it gets, 0 to 1; < 0: as it has slots */
    bool failed;          /* it failed to deploy: answer UNAVAILABLE instead of waiting */
    bool scales;          /* the number of its replicas follows the load */
};

struct rs_route_app {
    const char *name, *prefix; /* prefix NULL: not on HTTP */
    const char *ingress;       /* deployment that takes its HTTP requests */
    const json_t *policy;      /* of its requests, see core/model/policy.h; NULL: none */
    const json_t *graph;       /* that takes them instead, see stage.h; NULL: none */
};

/* One snapshot replaces the other at once; deployments that are gone refuse their queued requests. */
struct rs_routes {
    const struct rs_route_app *apps;
    size_t n_apps;
    const struct rs_route_deployment *deployments;
    size_t n_deployments;
    bool populated; /* false: no application was ever deployed (healthz and routes answer 503) */
    bool draining;  /* healthz answers 503 */
};

/* Figures of one replica (replica_id set) or one deployment (replica_id NULL). */
struct rs_dataplane_stat {
    const char *app, *deployment, *replica_id;
    unsigned in_flight, queued; /* queued: deployments only */
    unsigned models;            /* replicas: that it has loaded */
    uint64_t done, errors;
    unsigned open, calls; /* replicas: see struct rs_figures in metrics.h */
    uint64_t moved, given_up;
    uint64_t
        dropped[3]; /* deployments: refused because the queue was full, shed, or expired in it */
    uint64_t fallbacks; /* deployments: choices that its own request router did not make */
    uint64_t load_us;   /* deployments: integral of the requests that are here, in microseconds */
};

struct rs_dataplane_ops {
    /* A frame of the replica's own life (HELLO, READY, FAILED, PONG, STATS): JSON, borrowed. */
    void (*on_replica)(const char *replica_id, enum rs_msg type, uint64_t stream, json_t *msg,
                       void *arg);
    /* The connection is gone (hang-up, or garbage: `why`). Requests that can go on do; the others wait
     * a moment for rs_dataplane_detach, which says how it ended. */
    void (*on_replica_gone)(const char *replica_id, const char *why, void *arg);
    /* After rs_dataplane_retire: the last request of the replica ended. */
    void (*on_replica_idle)(const char *replica_id, void *arg);
    /* Requests came to a deployment that had none when its figures were last read. `urgent`: it has no
     * replica that could take them, or it scales and has about twice as many as were read. */
    void (*on_load)(bool urgent, void *arg);
    /* A question to the deployment's own request router: CHOOSE without what the control thread knows.
     * Answered by rs_dataplane_chosen with the same id; id 0: not answered. `router`: its
     * configuration; both are borrowed, `question` may be changed. */
    void (*on_choose)(const char *app, const char *deployment, const json_t *router, uint64_t id,
                      json_t *question, void *arg);
};

RS_MUST_CHECK int rs_dataplane_new(struct rs_dataplane **ret, struct rs_loop *control,
                                   const struct rs_ingress_conf *conf, struct rs_metrics *metrics,
                                   const struct rs_dataplane_ops *ops, void *arg,
                                   struct rs_error *err);
void rs_dataplane_free(struct rs_dataplane *d); /* stops and joins the lanes */
RS_DEFINE_AUTO(struct rs_dataplane *, rs_dataplane_free);
uint16_t rs_dataplane_port(const struct rs_dataplane *d);
/* Opens the HTTP listener of a data plane that has none: host, port, root_path and the times of `conf`
 * count, the rest is as _new was told. */
RS_MUST_CHECK int rs_dataplane_listen(struct rs_dataplane *d, const struct rs_ingress_conf *conf,
                                      struct rs_error *err);
/* Stops accepting HTTP connections; what was accepted goes on. */
void rs_dataplane_stop_accepting(struct rs_dataplane *d);
/* Opens the file of the access log anew. */
void rs_dataplane_reopen_log(struct rs_dataplane *d);
/* HTTP requests under way on this node, for a drain that says what it waits for. */
unsigned rs_dataplane_ongoing(const struct rs_dataplane *d);

void rs_dataplane_routes(struct rs_dataplane *d, const struct rs_routes *routes);

/* A replica that speaks frames on `fd` (taken): python and exec. It gets no requests yet. `version`:
 * that it is of, as in `fresh`; NULL: nobody tells. */
void rs_dataplane_attach(struct rs_dataplane *d, const char *app, const char *deployment,
                         const char *version, const char *replica_id, int fd);
/* A replica that is an HTTP server at this address: 127.0.0.1:port or a Unix socket path. Paths reach it
 * without the application's route prefix if `strip_prefix`. */
void rs_dataplane_attach_http(struct rs_dataplane *d, const char *app, const char *deployment,
                              const char *version, const char *replica_id, uint16_t port,
                              const char *unix_path, bool strip_prefix);
/* Another node that runs `slots` worth of this deployment, behind a peer connection. slots 0 removes.
 * `version`: the one that is `fresh`; NULL: any other. */
void rs_dataplane_remote(struct rs_dataplane *d, const char *app, const char *name,
                         const char *version, const char *node_id, const char *address,
                         unsigned slots);
/* Requests may come. */
void rs_dataplane_admit(struct rs_dataplane *d, const char *replica_id);
/* It gets so many percent of its share of requests while others can take them; 0: none for now, 100: as
 * all. */
void rs_dataplane_weigh(struct rs_dataplane *d, const char *replica_id, unsigned percent);
/* No further requests; on_replica_idle follows. */
void rs_dataplane_retire(struct rs_dataplane *d, const char *replica_id);
/* It has ended, and `why` says how (NULL: nobody knows): closes the connection. Of the requests that it
 * had some go on (retry.h), the others end with DIED and this text. */
void rs_dataplane_detach(struct rs_dataplane *d, const char *replica_id, const char *why);
/* INIT, PING, RECONFIGURE, STOP to a replica that speaks frames. `msg` may be NULL. */
void rs_dataplane_tell(struct rs_dataplane *d, const char *replica_id, enum rs_msg type,
                       uint64_t stream, const json_t *msg);

/* CHOSEN for a question; NULL: there will be no answer, for id 0 to any of the deployment. */
void rs_dataplane_chosen(struct rs_dataplane *d, const char *app, const char *name, uint64_t id,
                         const json_t *answer);

/* Takes a connection from another node (after its HELLO was read or not: HELLO is handled here). */
void rs_dataplane_accept_peer(struct rs_dataplane *d, int fd);

/* HTTP requests that got no answer of the application, so far: `fn` is called for each application and
 * cause, perhaps several times. When there are more, ops.on_load is called, once. */
void rs_dataplane_refused(struct rs_dataplane *d,
                          void (*fn)(const char *app, const char *cause, uint64_t n, void *arg),
                          void *arg);
/* What became of the requests of both versions since `fresh` is what it is. The version; NULL: only one
 * runs. */
const char *rs_dataplane_tally(const struct rs_dataplane *d, const char *app,
                               const char *deployment, struct rs_tally *old,
                               struct rs_tally *fresh);
/* How long the requests took that the replica answered, into RS_TALLY_BUCKETS counts. False: there is no
 * such replica. */
bool rs_dataplane_took(const struct rs_dataplane *d, const char *replica_id, uint64_t *ret);
/* Consistent figures, gathered from the lanes' atomics; `fn` is called before this returns. */
void rs_dataplane_stats(const struct rs_dataplane *d,
                        void (*fn)(const struct rs_dataplane_stat *s, void *arg), void *arg);
