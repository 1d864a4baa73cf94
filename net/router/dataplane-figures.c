/* What the control thread reads of the lanes' counters. */
#include "core/base/clock.h"
#include "net/router/dataplane-state.h"

unsigned rs_dataplane_ongoing(const struct rs_dataplane *d)
{
    unsigned n = 0;

    for (unsigned i = 0; i < d->n_lanes; i++)
        n += atomic_load_explicit(&d->lanes[i].ongoing, memory_order_relaxed);
    return n;
}

static void read_figures(struct rs_figures *f, struct rs_dataplane_stat *s)
{
    s->in_flight = atomic_load_explicit(&f->in_flight, memory_order_relaxed);
    s->models = atomic_load_explicit(&f->models, memory_order_relaxed);
    s->queued = atomic_load_explicit(&f->queued, memory_order_relaxed);
    s->done = atomic_load_explicit(&f->done, memory_order_relaxed);
    s->errors = atomic_load_explicit(&f->errors, memory_order_relaxed);
}

/* The integral up to now; read again if the lane wrote meanwhile. Without load, the next one is told; of
 * a deployment that scales, also when there is about twice as much. */
static uint64_t read_load(struct rs_figures *f, bool scales)
{
    unsigned turn, load;
    int64_t at;
    uint64_t us;

    atomic_store_explicit(&f->alarm_at, 1, memory_order_seq_cst);
    do {
        turn = atomic_load_explicit(&f->turn, memory_order_acquire);
        load = atomic_load_explicit(&f->load, memory_order_acquire);
        at = atomic_load_explicit(&f->load_at, memory_order_acquire);
        us = atomic_load_explicit(&f->load_us, memory_order_acquire);
    } while (turn % 2 || turn != atomic_load_explicit(&f->turn, memory_order_relaxed));
    if (load == 0)
        return us;
    atomic_store_explicit(&f->alarm_at, scales ? 2 * load + 2 : 0, memory_order_relaxed);
    return us + (uint64_t)(load * ((double)(rs_clock_now() - at) / (double)RS_US));
}

/* A deployment's figures are the sums of its replicas'; only what waits is counted by itself. */
static void deployment_stat(const struct rs_dataplane *d, struct rs_homed *dep,
                            struct rs_dataplane_stat *s)
{
    *s = (struct rs_dataplane_stat){.app = dep->app, .deployment = dep->name};
    read_figures(&dep->figures, s);
    s->load_us = read_load(&dep->figures, dep->scales);
    for (size_t i = 0; i < RS_COUNT(s->dropped); i++)
        s->dropped[i] = atomic_load_explicit(&dep->figures.dropped[i], memory_order_relaxed);
    s->fallbacks = atomic_load_explicit(&dep->figures.fallbacks, memory_order_relaxed);
    for (size_t i = 0; i < rs_map_slots(&d->replicas); i++) {
        const struct rs_attached *x = rs_map_at(&d->replicas, i, NULL);
        struct rs_dataplane_stat one = {0};

        if (!x || x->deployment != dep)
            continue;
        read_figures(x->figures, &one);
        s->in_flight += one.in_flight;
        s->done += one.done;
        s->errors += one.errors;
    }
}

struct refused {
    void (*fn)(const char *app, const char *cause, uint64_t n, void *arg);
    void *arg;
};

/* Labels are route, application, cause. */
static void one_refused(const char *const *labels, double value, void *arg)
{
    const struct refused *r = arg;

    if (*labels[1] && *labels[2] && value > 0)
        r->fn(labels[1], labels[2], (uint64_t)value, r->arg);
}

void rs_dataplane_refused(struct rs_dataplane *d,
                          void (*fn)(const char *app, const char *cause, uint64_t n, void *arg),
                          void *arg)
{
    struct refused r = {fn, arg};

    atomic_store_explicit(&d->tell_refused, true, memory_order_seq_cst);
    rs_family_each(d->metrics.http_refused, one_refused, &r);
}

const char *rs_dataplane_tally(const struct rs_dataplane *d, const char *app,
                               const char *deployment, struct rs_tally *old, struct rs_tally *fresh)
{
    struct rs_buf key = {0};
    const struct rs_homed *dep = rs_map_get(&d->deployments, rs_route_key(&key, app, deployment));

    rs_buf_fini(&key);
    if (!dep || !dep->tallies)
        return NULL;
    rs_tallies_read(dep->tallies, old, fresh);
    return dep->fresh;
}

bool rs_dataplane_took(const struct rs_dataplane *d, const char *replica_id, uint64_t *ret)
{
    const struct rs_attached *x = rs_map_get(&d->replicas, replica_id);

    for (unsigned i = 0; x && i < RS_TALLY_BUCKETS; i++)
        ret[i] = atomic_load_explicit(&x->figures->took[i], memory_order_relaxed);
    return x != NULL;
}

void rs_dataplane_stats(const struct rs_dataplane *d,
                        void (*fn)(const struct rs_dataplane_stat *s, void *arg), void *arg)
{
    struct rs_dataplane_stat s;

    for (size_t i = 0; i < rs_map_slots(&d->deployments); i++) {
        struct rs_homed *dep = rs_map_at(&d->deployments, i, NULL);

        if (!dep || !dep->routed)
            continue;
        deployment_stat(d, dep, &s);
        fn(&s, arg);
    }
    for (size_t i = 0; i < rs_map_slots(&d->replicas); i++) {
        const char *id;
        const struct rs_attached *x = rs_map_at(&d->replicas, i, &id);

        if (!x)
            continue;
        s = (struct rs_dataplane_stat){
            .app = x->deployment->app, .deployment = x->deployment->name, .replica_id = id};
        read_figures(x->figures, &s);
        s.open = atomic_load_explicit(&x->figures->open, memory_order_relaxed);
        s.calls = atomic_load_explicit(&x->figures->calls, memory_order_relaxed);
        s.moved = atomic_load_explicit(&x->figures->moved, memory_order_relaxed);
        s.given_up = atomic_load_explicit(&x->figures->given_up, memory_order_relaxed);
        fn(&s, arg);
    }
}
