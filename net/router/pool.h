/* One deployment on its home lane: its queue and its backends.
 *
 * Thread: the home lane's.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/loop/loop.h"
#include "net/router/backend.h"
#include "net/router/metrics.h"
#include "net/router/tallies.h"

#include <jansson.h>

struct rs_pool_ops {
    /* A retired backend has nothing left to do. */
    void (*on_idle)(struct rs_backend *b, void *arg);
    /* It died. It stays until rs_pool_remove tells how, or for a moment. */
    void (*on_gone)(struct rs_backend *b, const char *why, void *arg);
    /* All its requests have ended. To be freed, but not from inside this. */
    void (*on_buried)(struct rs_backend *b, void *arg);
    /* There is as much load as figures->alarm_at asked to be told of. `urgent`: nothing can take it, or
     * it is not the first of it. */
    void (*on_load)(bool urgent, void *arg);
    /* A question to the deployment's own router, answered through rs_chooser_answer with the same
     * `id`; 0: no answer is owed. `question` is taken. */
    void (*on_choose)(struct rs_pool *p, uint64_t id, json_t *question, void *arg);
};

struct rs_pool {
    struct rs_loop *loop;
    const struct rs_pool_ops *ops;
    void *arg;
    char *app, *name;
    const char *shown_app, *shown_name; /* in metrics */
    struct rs_lane_memory *memory;
    struct rs_queue queue;
    struct rs_retry_budget budget;
    int max_ongoing;
    bool known;    /* the route table has it */
    bool failed;   /* it failed to deploy */
    bool stopping; /* the node stops */
    bool pumping;
    struct rs_figures *figures;
    const struct rs_router_metrics *metrics;
    struct rs_series *queued;
    unsigned queued_shown;
    unsigned working;                  /* requests that replicas of this node have */
    unsigned load;                     /* those and the queued, as shown */
    int64_t load_rest;                 /* ns of the integral that are no whole microsecond yet */
    struct rs_chooser *chooser;        /* NULL: no router of its own */
    struct rs_series *fallbacks;       /* with one; NULL before */
    struct rs_series *waits;           /* NULL: nobody had to */
    struct rs_series *drops[RS_DROPS]; /* NULL: none yet */
    struct rs_timer patience;          /* time alone changes something: rs_queue_deadline */
    struct rs_series_cache *calls;     /* requests to it, by handle and route */
    struct rs_tallies *tallies;        /* NULL: one version */
    uint64_t draws;                    /* requests of a split that bring nothing to draw by */
};

struct rs_pool *rs_pool_new(struct rs_loop *loop, const struct rs_router_metrics *metrics,
                            const char *app, const char *name, struct rs_figures *figures,
                            const struct rs_pool_ops *ops, void *arg);
void rs_pool_free(struct rs_pool *p); /* NULL is fine; no backends, nothing queued */
RS_DEFINE_AUTO(struct rs_pool *, rs_pool_free);

/* As the route table says. Those who wait are refused if it failed. */
void rs_pool_configure(struct rs_pool *p, int max_ongoing, const struct rs_queue_conf *queue,
                       bool failed);
/* Two versions run beside each other: they are counted apart in `tallies` (taken), and share the requests
 * if split->on. `split` zeroed and NULL: one does, from now on. */
void rs_pool_split(struct rs_pool *p, const struct rs_split *split, struct rs_tallies *tallies);
/* It has a router of its own from now on: request_router_config; NULL: it has none. */
void rs_pool_router(struct rs_pool *p, const json_t *conf);
/* The node stops: where nothing takes requests any more, nothing will. */
void rs_pool_stop(struct rs_pool *p, bool stopping);
/* The route table has it no longer: those who wait are refused. */
void rs_pool_forget(struct rs_pool *p);

/* Takes the request on: it is sent, waits, or is refused at once. */
void rs_pool_submit(struct rs_pool *p, struct rs_request *r);

/* `limit` 0: as many as the deployment's max_ongoing. */
void rs_pool_add(struct rs_pool *p, struct rs_backend *b, unsigned limit);
void rs_pool_admit(struct rs_pool *p, struct rs_backend *b, bool admitted);
/* The names of the models that a backend has loaded or is loading: texts of a JSON array. */
void rs_pool_models(struct rs_pool *p, struct rs_backend *b, const json_t *names);
/* It gets so many percent of its share of the requests while others can take them; 100: as all do. 0: none
 * at all for now. */
void rs_pool_weigh(struct rs_pool *p, struct rs_backend *b, unsigned percent);
/* 0: no further requests, as with rs_pool_admit false. */
void rs_pool_resize(struct rs_pool *p, struct rs_backend *b, unsigned limit);
/* It is dead, and `why` says how. What can go on of its requests does, the others end with DIED;
 * on_buried follows. */
void rs_pool_remove(struct rs_pool *p, struct rs_backend *b, const char *why);
