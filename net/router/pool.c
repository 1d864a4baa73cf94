#include "net/router/pool.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "net/router/choose.h"
#include "net/router/pool-internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* How long a request with a model waits for a busy replica that has it, beside a free one. */
enum { PATIENCE_MS = 1000 };

static int on_patience(struct rs_timer *t)
{
    rs_pool_pump(rs_container_of(t, struct rs_pool, patience));
    return 0;
}

/* Actors come and go, each a deployment of its own: what is counted is counted for all of them. */
static void name_in_metrics(struct rs_pool *p)
{
    bool core = strncmp(p->app, "ray:", 4) == 0;

    p->shown_app = core ? "ray" : p->app;
    p->shown_name = !core ? p->name : strncmp(p->name, "task:", 5) == 0 ? "tasks" : "actors";
}

struct rs_pool *rs_pool_new(struct rs_loop *loop, const struct rs_router_metrics *metrics,
                            const char *app, const char *name, struct rs_figures *figures,
                            const struct rs_pool_ops *ops, void *arg)
{
    struct rs_pool *p = rs_alloc(sizeof(*p));

    p->loop = loop;
    p->metrics = metrics;
    p->app = rs_strdup(app);
    p->name = rs_strdup(name);
    p->figures = figures;
    p->ops = ops;
    p->arg = arg;
    rs_queue_init(&p->queue, -1);
    p->max_ongoing = 1;
    p->patience.fn = on_patience;
    rs_retry_budget_init(&p->budget, 1, RS_RETRY_PERCENT);
    name_in_metrics(p);
    p->queued = rs_family_series(metrics->queued,
                                 (const char *const[]){p->shown_name, p->shown_app, "", ""});
    return p;
}

static void free_cache(struct rs_series_cache *c)
{
    while (c) {
        struct rs_series_cache *next = c->next;

        free(c->route);
        free(c);
        c = next;
    }
}

void rs_pool_free(struct rs_pool *p)
{
    if (!p)
        return;
    assert(rs_list_empty(&p->queue.slots) && p->queue.queued == 0);
    rs_timer_stop(&p->patience);
    rs_chooser_free(p->chooser);
    free_cache(p->calls);
    free(p->tallies);
    free(p->app);
    free(p->name);
    free(p);
}

/* --- figures ----------------------------------------------------------------------------------- */

/* The integral grows by what was, then what is begins. */
static void show_load(struct rs_pool *p)
{
    struct rs_figures *f = p->figures;
    unsigned load = p->queue.queued + p->working;
    int64_t now = rs_loop_now(p->loop);
    unsigned turn, at;

    if (load == p->load)
        return;
    turn = atomic_load_explicit(&f->turn, memory_order_relaxed);
    p->load_rest +=
        (int64_t)p->load * (now - atomic_load_explicit(&f->load_at, memory_order_relaxed));
    p->load = load;
    atomic_store_explicit(&f->turn, turn + 1, memory_order_relaxed);
    atomic_store_explicit(&f->load, load, memory_order_release);
    atomic_store_explicit(&f->load_at, now, memory_order_release);
    atomic_store_explicit(&f->load_us,
                          atomic_load_explicit(&f->load_us, memory_order_relaxed) +
                              (uint64_t)(p->load_rest / RS_US),
                          memory_order_release);
    atomic_store_explicit(&f->turn, turn + 2, memory_order_release);
    p->load_rest %= RS_US;
    at = atomic_load_explicit(&f->alarm_at, memory_order_relaxed);
    if (at && load >= at && atomic_exchange_explicit(&f->alarm_at, 0, memory_order_relaxed))
        p->ops->on_load(at > 1 || !rs_queue_open(&p->queue), p->arg);
}

void rs_pool_show_queued(struct rs_pool *p)
{
    show_load(p);
    if (p->queue.queued == p->queued_shown)
        return;
    rs_series_add(p->queued, (double)p->queue.queued - (double)p->queued_shown);
    p->queued_shown = p->queue.queued;
    atomic_store_explicit(&p->figures->queued, p->queue.queued, memory_order_relaxed);
}

static void show_in_flight(struct rs_backend *b)
{
    if (b->figures)
        atomic_store_explicit(&b->figures->in_flight, b->slots.in_flight, memory_order_relaxed);
    if (b->processing)
        rs_series_set(b->processing, b->slots.in_flight);
}

static struct rs_series_cache *find_cache(struct rs_series_cache *c, const char *route, size_t len)
{
    while (c && (c->route_len != len || memcmp(c->route, route, len) != 0))
        c = c->next;
    return c;
}

/* A backend's series for the route by which `r` came. */
static struct rs_series_cache *replica_series(struct rs_pool *p, struct rs_backend *b,
                                              const struct rs_request *r)
{
    const char *route = r->route_len ? rs_buf_head(&r->meta) + r->route_at : "";
    struct rs_series_cache *c = find_cache(b->cache, route, r->route_len);

    if (!c) {
        c = rs_alloc(sizeof(*c));
        c->route = rs_strndup(route, r->route_len);
        c->route_len = r->route_len;
        const char *labels[] = {p->shown_name, b->replica_id, c->route, p->shown_app};

        c->requests = rs_family_series(p->metrics->replica_requests, labels);
        c->latency = rs_family_series(p->metrics->replica_latency, labels);
        c->next = b->cache;
        b->cache = c;
    }
    return c;
}

static void count_error(struct rs_pool *p, struct rs_backend *b, const struct rs_series_cache *c,
                        const struct rs_failure *f)
{
    char type[64] = "";
    struct rs_fields fields;

    if (f->meta && rs_fields_parse(f->meta, f->meta_len, &fields, NULL) == 0 &&
        rs_fields_has(&fields, RS_TAG_ERROR_TYPE))
        snprintf(type, sizeof(type), "%.*s", (int)fields.at[RS_TAG_ERROR_TYPE].len,
                 fields.at[RS_TAG_ERROR_TYPE].data);
    rs_series_add(rs_family_series(p->metrics->replica_errors,
                                   (const char *const[]){p->shown_name, b->replica_id, c->route,
                                                         p->shown_app, type}),
                  1);
}

static void count(struct rs_pool *p, struct rs_backend *b, const struct rs_request *r,
                  enum rs_unbind how, const struct rs_failure *f)
{
    struct rs_series_cache *c;

    if (!b->figures || how == RS_UNBIND_RETURNED)
        return;
    if (p->tallies)
        rs_pool_tally(p, b, r, how, f);
    c = replica_series(p, b, r);
    atomic_fetch_add_explicit(&b->figures->done, 1, memory_order_relaxed);
    if (how == RS_UNBIND_DONE)
        rs_series_add(c->requests, 1);
    if (how == RS_UNBIND_FAILED) {
        atomic_fetch_add_explicit(&b->figures->errors, 1, memory_order_relaxed);
        count_error(p, b, c, f);
    }
    if (how == RS_UNBIND_DONE)
        RS_FIGURE_ADD(b->figures->took[rs_tally_bucket(rs_loop_now(p->loop) - r->sent_at)], 1);
    if (how != RS_UNBIND_CANCELLED && how != RS_UNBIND_ABANDONED)
        RS_FIGURE_ADD(b->figures->moved, 1);
    else
        RS_FIGURE_ADD(b->figures->given_up, 1);
    if (how != RS_UNBIND_CANCELLED && how != RS_UNBIND_ABANDONED)
        rs_series_observe(c->latency, (double)(rs_loop_now(p->loop) - r->sent_at) / (double)RS_MS);
}

static void count_submit(struct rs_pool *p, const struct rs_request *r)
{
    const char *route = r->route_len ? rs_buf_head(&r->meta) + r->route_at : "";
    struct rs_series_cache *c = find_cache(p->calls, route, r->route_len);

    if (!c) {
        c = rs_alloc(sizeof(*c));
        c->route = rs_strndup(route, r->route_len);
        c->route_len = r->route_len;
        c->requests =
            rs_family_series(p->metrics->handle_requests,
                             (const char *const[]){"", p->shown_name, c->route, p->shown_app});
        c->next = p->calls;
        p->calls = c;
    }
    rs_series_add(c->requests, 1);
}

void rs_pool_count_piece(struct rs_request *r, bool first)
{
    struct rs_figures *f = r->backend ? r->backend->figures : NULL;

    if (!f)
        return;
    RS_FIGURE_ADD(f->moved, 1);
    if (!first || r->opened)
        return;
    r->opened = true;
    RS_FIGURE_ADD(f->open, 1u);
}

/* --- requests ---------------------------------------------------------------------------------- */

void rs_pool_unbind(struct rs_pool *p, struct rs_request *r, enum rs_unbind how,
                    const struct rs_failure *f)
{
    struct rs_backend *b = r->backend;

    assert(b);
    r->backend = NULL;
    rs_list_remove(&r->link);
    if (how == RS_UNBIND_ABANDONED)
        b->abandoned++;
    else
        rs_queue_release(&p->queue, &b->slots, rs_loop_now(p->loop));
    p->working -= b->figures != NULL;
    if (r->opened && b->figures)
        RS_FIGURE_ADD(b->figures->open, -1u);
    r->opened = false;
    if (how != RS_UNBIND_RETURNED) { /* that one is on its way into the queue */
        if (r->deadline) /* how long it takes is of interest to those who have little time only */
            rs_queue_took(&p->queue, rs_loop_now(p->loop) - r->sent_at, how == RS_UNBIND_DONE);
        show_load(p);
    }
    count(p, b, r, how, f);
    show_in_flight(b);
    if (r->choice && how != RS_UNBIND_RETURNED)
        rs_chooser_drop(p->chooser, r, b);
    if (b->retired && !b->gone && b->slots.in_flight == 0)
        p->ops->on_idle(b, p->arg);
}

void rs_backend_ended(struct rs_backend *b)
{
    struct rs_pool *p = b->pool;

    if (!p || !b->abandoned)
        return;
    b->abandoned--;
    rs_queue_release(&p->queue, &b->slots, rs_loop_now(p->loop));
    show_in_flight(b);
    if (b->retired && !b->gone && b->slots.in_flight == 0)
        p->ops->on_idle(b, p->arg);
    rs_pool_pump(p);
}

void rs_pool_bind(struct rs_pool *p, struct rs_request *r, struct rs_backend *b)
{
    r->backend = b;
    r->sent_at = rs_loop_now(p->loop);
    rs_list_push_back(&b->requests, &r->link);
    p->working += b->figures != NULL;
    show_in_flight(b);
    if (p->chooser)
        rs_chooser_bound(p->chooser, r, b);
}

static struct rs_request *of(struct rs_waiter *w)
{
    return rs_container_of(w, struct rs_request, waiter);
}

static void note_replica(struct rs_request *r, const struct rs_backend *b)
{
    const char *id = b->replica_id ? b->replica_id : "remote";
    size_t len = strnlen(id, RS_REPLICA_ID_SHOWN - 1);

    memcpy(r->replica, id, len);
    r->replica[len] = '\0';
}

/* The slot is taken; without one it is too late. */
static void give(struct rs_pool *p, struct rs_request *r, struct rs_slots *s)
{
    struct rs_backend *b = s ? rs_container_of(s, struct rs_backend, slots) : NULL;

    if (!b) {
        rs_pool_drop(p, r, RS_DROP_EXPIRED);
        return;
    }
    if (rs_loop_now(p->loop) > r->waiter.arrived)
        rs_pool_count_wait(p, rs_loop_now(p->loop) - r->waiter.arrived);
    rs_pool_bind(p, r, b);
    if (r->held)
        rs_request_hold_as(r, RS_HELD_REPLAY);
    if (r->replica)
        note_replica(r, b);
    if (r->wants == RS_WANTS_SLOT)
        r->reply->reserved(r, b->replica_id);
    else
        b->ops->send(b, r);
}

void rs_pool_pump(struct rs_pool *p)
{
    int64_t now = rs_loop_now(p->loop), deadline;
    struct rs_request *chosen;
    struct rs_slots *s;
    struct rs_waiter *w;

    if (p->pumping || !p->queue.queued)
        return; /* a backend that answers from inside send: the loop below goes on */
    p->pumping = true;
    while (p->chooser && (chosen = rs_chooser_next(p->chooser, &s)))
        give(p, chosen, s);
    while ((w = rs_queue_next(&p->queue, now, &s)))
        give(p, of(w), s);
    while (p->queue.shed.target && (w = rs_queue_shed(&p->queue, now)))
        rs_pool_drop(p, of(w), RS_DROP_SHED);
    p->pumping = false;
    deadline = rs_queue_deadline(&p->queue, now);
    if (deadline)
        rs_timer_start(&p->patience, p->loop, deadline);
    rs_pool_show_queued(p);
}

/* Not through rs_request_fail: it has no backend. */
static void refuse(struct rs_request *r, enum rs_wire_error code, const char *message)
{
    r->pool = NULL;
    r->reply->fail(r, &(struct rs_failure){.code = code, .message = message});
}

static void refuse_unavailable(struct rs_pool *p, struct rs_request *r)
{
    char message[512];

    snprintf(message, sizeof(message), "Deployment(name='%s', app='%s') is unavailable because %s.",
             p->name, p->app,
             !p->known   ? "it was deleted"
             : p->failed ? "it failed to deploy"
                         : "its node stops");
    refuse(r, RS_WIRE_UNAVAILABLE, message);
}

static bool is_closed(const struct rs_pool *p)
{
    return !p->known || ((p->failed || p->stopping) && !rs_queue_open(&p->queue));
}

static void enqueue(struct rs_pool *p, struct rs_request *r)
{
    int64_t now = rs_loop_now(p->loop);
    struct rs_waiter *displaced;

    r->pool = p;
    r->waiter.deadline = r->deadline;
    r->waiter.priority = r->priority;
    if (r->waiter.wish.model)
        r->waiter.patient_until = now + PATIENCE_MS * RS_MS;
    if (rs_queue_put(&p->queue, &r->waiter, now, &displaced) == RS_QUEUE_FULL) {
        rs_pool_drop(p, r, RS_DROP_FULL);
        return;
    }
    if (displaced)
        rs_pool_drop(p, of(displaced), RS_DROP_FULL);
    if (p->chooser)
        rs_chooser_add(p->chooser, r);
    rs_pool_pump(p);
    rs_pool_show_queued(p);
}

/* Who does not wait: a shadow. */
static void take_if_idle(struct rs_pool *p, struct rs_request *r)
{
    if (rs_queue_idle(&p->queue, &r->waiter)) {
        r->wants = RS_WANTS_WORK;
        enqueue(p, r);
        return;
    }
    refuse(r, RS_WIRE_BACKPRESSURE, "there is no slot that nobody else wants");
}

void rs_pool_submit(struct rs_pool *p, struct rs_request *r)
{
    count_submit(p, r);
    rs_retry_earn(&p->budget, rs_loop_now(p->loop));
    if (is_closed(p)) {
        refuse_unavailable(p, r);
        return;
    }
    if (r->wants == RS_WANTS_LIST || r->wants == RS_WANTS_REPLICA) {
        rs_pool_aim(p, r);
        rs_pool_show_queued(p);
        return;
    }
    r->waiter.local_only = r->local_only;
    if (p->queue.split.on)
        rs_pool_draw(p, r);
    if (r->wants == RS_WANTS_FREE)
        take_if_idle(p, r);
    else
        enqueue(p, r);
}

void rs_pool_refuse_waiting(struct rs_pool *p)
{
    struct rs_waiter *w;

    while (is_closed(p) && (w = rs_queue_pop(&p->queue))) {
        struct rs_request *r = of(w);

        rs_chooser_drop(p->chooser, r, NULL);
        refuse_unavailable(p, r);
    }
    rs_pool_show_queued(p);
}

void rs_pool_configure(struct rs_pool *p, int max_ongoing, const struct rs_queue_conf *queue,
                       bool failed)
{
    p->known = true;
    p->failed = failed;
    rs_queue_configure(&p->queue, queue);
    p->max_ongoing = max_ongoing < 1 ? 1 : max_ongoing;
    rs_retry_budget_floor(&p->budget, rs_retry_floor((unsigned)p->max_ongoing));
    rs_list_for_each (it, &p->queue.slots) {
        struct rs_slots *s = rs_container_of(it, struct rs_slots, link);

        if (!s->remote)
            s->limit = (unsigned)p->max_ongoing;
    }
    rs_pool_refuse_waiting(p);
    rs_pool_pump(p);
}

void rs_pool_router(struct rs_pool *p, const json_t *conf)
{
    const char *const labels[] = {p->name, p->app};

    if (conf && p->chooser) {
        rs_chooser_configure(p->chooser, conf);
    } else if (conf) {
        p->fallbacks = rs_family_series(p->metrics->fallbacks, labels);
        p->chooser = rs_chooser_new(p, conf);
    } else if (p->chooser) {
        rs_chooser_free(p->chooser);
        p->chooser = NULL;
        rs_pool_pump(p);
    }
}

void rs_pool_stop(struct rs_pool *p, bool stopping)
{
    p->stopping = stopping;
    if (stopping)
        rs_pool_refuse_waiting(p);
}

void rs_pool_forget(struct rs_pool *p)
{
    p->known = false;
    rs_pool_refuse_waiting(p);
}

/* --- backends ---------------------------------------------------------------------------------- */

void rs_pool_add(struct rs_pool *p, struct rs_backend *b, unsigned limit)
{
    b->pool = p;
    rs_list_init(&b->requests);
    b->slots.limit = limit ? limit : (unsigned)p->max_ongoing;
    b->slots.remote = !b->replica_id;
    if (b->replica_id)
        b->slots.key = rs_wish_hash(b->replica_id, strlen(b->replica_id));
    if (b->replica_id)
        b->processing =
            rs_family_series(p->metrics->replica_processing,
                             (const char *const[]){p->shown_name, b->replica_id, p->shown_app});
    rs_queue_add_slots(&p->queue, &b->slots);
}

void rs_pool_admit(struct rs_pool *p, struct rs_backend *b, bool admitted)
{
    if (b->gone)
        return;
    b->slots.admitted = admitted;
    b->retired = !admitted;
    if (admitted)
        rs_pool_pump(p);
    else if (b->slots.in_flight == 0)
        p->ops->on_idle(b, p->arg);
    rs_pool_refuse_waiting(p);
}

void rs_pool_models(struct rs_pool *p, struct rs_backend *b, const json_t *names)
{
    uint64_t models[RS_MODELS_MAX];
    const json_t *name;
    size_t i, n = 0;

    if (b->gone)
        return;
    json_array_foreach (names, i, name) {
        if (json_is_string(name) && n < RS_MODELS_MAX)
            models[n++] = rs_wish_hash(json_string_value(name), json_string_length(name));
    }
    rs_queue_models(&p->queue, &b->slots, models, n);
    if (b->figures)
        atomic_store_explicit(&b->figures->models, (unsigned)n, memory_order_relaxed);
    rs_pool_pump(p);
}

void rs_pool_resize(struct rs_pool *p, struct rs_backend *b, unsigned limit)
{
    b->slots.limit = limit;
    b->slots.admitted = limit > 0;
    b->retired = limit == 0;
    if (b->retired && b->slots.in_flight == 0)
        p->ops->on_idle(b, p->arg);
    else
        rs_pool_pump(p);
}

void rs_pool_weigh(struct rs_pool *p, struct rs_backend *b, unsigned percent)
{
    unsigned n = 0;

    rs_list_for_each (it, &p->queue.slots)
        n += rs_container_of(it, struct rs_slots, link)->admitted;
    rs_queue_weigh(&p->queue, &b->slots, percent, n);
    rs_pool_pump(p);
}

void rs_backend_block(struct rs_backend *b, bool blocked)
{
    if (b->slots.blocked == blocked)
        return;
    b->slots.blocked = blocked;
    if (!blocked && b->pool)
        rs_pool_pump(b->pool);
}

/* Replicas come and go: their series go with them. */
void rs_pool_drop_series(struct rs_pool *p, struct rs_backend *b)
{
    const struct rs_router_metrics *m = p->metrics;

    free_cache(b->cache);
    b->cache = NULL;
    b->processing = NULL;
    if (!b->replica_id)
        return;
    rs_family_drop(m->replica_processing, "replica", b->replica_id);
    rs_family_drop(m->replica_requests, "replica", b->replica_id);
    rs_family_drop(m->replica_errors, "replica", b->replica_id);
    rs_family_drop(m->replica_latency, "replica", b->replica_id);
}
