/* One deployment on one node, without processes: the production queue (net/router/queue.h) with
 * requests and replicas that are only pretended, and the figures that a node reports of them.
 *
 * What net/router/pool.c does around the queue, on a clock that is handed in: who gets a slot begins,
 * who is refused is told why, and a replica that was retired and has nothing left to do is idle.
 *
 * Ownership: requests and backends are the caller's, embedded in his own structs. A backend is
 *            removed before it is freed, a request when it neither waits nor runs.
 * Callbacks: may submit and release, on this pool too.
 * Units:     ns of virtual time.
 */
#pragma once

#include "net/router/queue.h"

struct rs_sim_pool;

struct rs_sim_backend {
    struct rs_slots slots;
    struct rs_sim_pool *pool; /* NULL: none */
    struct rs_list requests;  /* that it works on */
    bool retired;
    uint64_t done;
};

enum rs_sim_request_state { RS_SIM_OUTSIDE, RS_SIM_WAITS, RS_SIM_RUNS };

struct rs_sim_request {
    struct rs_waiter waiter;
    struct rs_list link; /* of its backend's */
    enum rs_sim_request_state state;
    struct rs_sim_pool *pool;       /* where it waits or runs */
    struct rs_sim_backend *backend; /* that it runs on */
    int64_t started;
};

enum rs_sim_refusal {
    RS_SIM_FULL = RS_DROP_FULL,
    RS_SIM_SHED = RS_DROP_SHED,
    RS_SIM_EXPIRED = RS_DROP_EXPIRED,
    RS_SIM_CLOSED = RS_DROPS, /* the deployment is not (or no longer) there, or failed */
    RS_SIM_REFUSALS
};

struct rs_sim_pool_ops {
    /* It has a slot of `b`: call rs_sim_pool_done when it has ended. */
    void (*start)(struct rs_sim_request *r, struct rs_sim_backend *b, void *arg);
    void (*refused)(struct rs_sim_request *r, enum rs_sim_refusal why, void *arg);
    void (*idle)(struct rs_sim_backend *b, void *arg);
    /* There is something to report that was not there when the figures were last read. */
    void (*load)(struct rs_sim_pool *p, void *arg);
};

struct rs_sim_pool {
    struct rs_queue queue;
    const struct rs_sim_pool_ops *ops;
    void *arg;  /* of the ops */
    void *user; /* the caller's */
    int max_ongoing;
    bool closed;
    bool pumping, again;
    unsigned working; /* requests on backends of this node */
    uint64_t load_ns_rest, load_us;
    int64_t load_at;
    bool alarm; /* the next load is to be told */
};

void rs_sim_pool_init(struct rs_sim_pool *p, const struct rs_sim_pool_ops *ops, void *arg);
/* What waits is refused as closed. No backends are left. */
void rs_sim_pool_fini(struct rs_sim_pool *p, int64_t now);
void rs_sim_pool_configure(struct rs_sim_pool *p, int max_ongoing, const struct rs_queue_conf *q,
                           bool closed, int64_t now);

/* `limit` 0: max_ongoing. */
void rs_sim_pool_add(struct rs_sim_pool *p, struct rs_sim_backend *b, unsigned limit, bool remote,
                     int64_t now);
void rs_sim_pool_admit(struct rs_sim_backend *b, int64_t now);
/* No further requests; `idle` follows, at once or later. */
void rs_sim_pool_retire(struct rs_sim_backend *b);
void rs_sim_pool_resize(struct rs_sim_backend *b, unsigned limit, int64_t now); /* a remote one */
/* It is gone. What it worked on is taken from it and handed to `lost`, one by one. */
void rs_sim_pool_remove(struct rs_sim_backend *b, int64_t now,
                        void (*lost)(struct rs_sim_request *r, void *arg), void *arg);

/* It begins, waits or is refused, before or after this returns. */
void rs_sim_pool_submit(struct rs_sim_pool *p, struct rs_sim_request *r, int64_t now);
/* Its work has ended: the slot is free. */
void rs_sim_pool_done(struct rs_sim_request *r, int64_t now);
/* Who asked is gone: it waits no longer. False: it does not wait. */
bool rs_sim_pool_cancel(struct rs_sim_request *r, int64_t now);
/* When time alone changes something: then call _pump. 0: never. */
int64_t rs_sim_pool_deadline(const struct rs_sim_pool *p, int64_t now);
void rs_sim_pool_pump(struct rs_sim_pool *p, int64_t now);

/* The integral of what waits and runs, request microseconds; the next load is told. */
uint64_t rs_sim_pool_load_us(struct rs_sim_pool *p, int64_t now);
