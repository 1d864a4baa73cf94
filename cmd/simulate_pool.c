#include "cmd/simulate_pool.h"

#include "core/base/clock.h"

static struct rs_sim_request *of(struct rs_waiter *w)
{
    return rs_container_of(w, struct rs_sim_request, waiter);
}

/* Before what is there changes. */
static void count_load(struct rs_sim_pool *p, int64_t now)
{
    uint64_t area =
        (uint64_t)(p->queue.queued + p->working) * (uint64_t)(now - p->load_at) + p->load_ns_rest;

    p->load_us += area / RS_US;
    p->load_ns_rest = area % RS_US;
    p->load_at = now;
}

static void tell_load(struct rs_sim_pool *p)
{
    if (!p->alarm || p->queue.queued + p->working == 0)
        return;
    p->alarm = false;
    p->ops->load(p, p->arg);
}

/* Nothing takes requests, and nothing will. */
static bool is_closed(const struct rs_sim_pool *p)
{
    return p->closed && !rs_queue_open(&p->queue);
}

static void refuse(struct rs_sim_pool *p, struct rs_sim_request *r, enum rs_sim_refusal why)
{
    r->state = RS_SIM_OUTSIDE;
    r->pool = NULL;
    p->ops->refused(r, why, p->arg);
}

static void begin(struct rs_sim_pool *p, struct rs_sim_request *r, struct rs_sim_backend *b,
                  int64_t now)
{
    r->state = RS_SIM_RUNS;
    r->backend = b;
    r->started = now;
    rs_list_push_back(&b->requests, &r->link);
    p->working += !b->slots.remote;
    p->ops->start(r, b, p->arg);
}

void rs_sim_pool_pump(struct rs_sim_pool *p, int64_t now)
{
    struct rs_waiter *w;

    if (p->pumping) {
        p->again = true;
        return;
    }
    p->pumping = true;
    count_load(p, now);
    do {
        struct rs_slots *s;

        p->again = false;
        while ((w = rs_queue_next(&p->queue, now, &s))) {
            if (s)
                begin(p, of(w), rs_container_of(s, struct rs_sim_backend, slots), now);
            else
                refuse(p, of(w), RS_SIM_EXPIRED);
        }
        while ((w = rs_queue_shed(&p->queue, now)))
            refuse(p, of(w), RS_SIM_SHED);
        while (is_closed(p) && (w = rs_queue_pop(&p->queue)))
            refuse(p, of(w), RS_SIM_CLOSED);
    } while (p->again);
    p->pumping = false;
    tell_load(p);
}

void rs_sim_pool_init(struct rs_sim_pool *p, const struct rs_sim_pool_ops *ops, void *arg)
{
    *p = (struct rs_sim_pool){.ops = ops, .arg = arg, .max_ongoing = 1, .alarm = true};
    rs_queue_init(&p->queue, -1);
}

void rs_sim_pool_fini(struct rs_sim_pool *p, int64_t now)
{
    p->closed = true;
    rs_sim_pool_pump(p, now);
}

void rs_sim_pool_configure(struct rs_sim_pool *p, int max_ongoing, const struct rs_queue_conf *q,
                           bool closed, int64_t now)
{
    rs_queue_configure(&p->queue, q);
    p->max_ongoing = max_ongoing < 1 ? 1 : max_ongoing;
    p->closed = closed;
    rs_list_for_each (it, &p->queue.slots) {
        struct rs_slots *s = rs_container_of(it, struct rs_slots, link);

        if (!s->remote)
            s->limit = (unsigned)p->max_ongoing;
    }
    rs_sim_pool_pump(p, now);
}

void rs_sim_pool_add(struct rs_sim_pool *p, struct rs_sim_backend *b, unsigned limit, bool remote,
                     int64_t now)
{
    rs_list_init(&b->requests);
    rs_list_init(&b->slots.link);
    b->pool = p;
    b->slots.remote = remote;
    b->slots.admitted = remote;
    b->slots.limit = limit ? limit : (unsigned)p->max_ongoing;
    rs_queue_add_slots(&p->queue, &b->slots);
    rs_sim_pool_pump(p, now);
}

void rs_sim_pool_admit(struct rs_sim_backend *b, int64_t now)
{
    b->slots.admitted = true;
    rs_sim_pool_pump(b->pool, now);
}

void rs_sim_pool_retire(struct rs_sim_backend *b)
{
    b->slots.admitted = false;
    b->retired = true;
    if (b->slots.in_flight == 0)
        b->pool->ops->idle(b, b->pool->arg);
}

void rs_sim_pool_resize(struct rs_sim_backend *b, unsigned limit, int64_t now)
{
    b->slots.limit = limit;
    b->slots.admitted = limit > 0;
    rs_sim_pool_pump(b->pool, now);
}

/* `b` is the backend that has it. */
static void unbind(struct rs_sim_request *r, struct rs_sim_backend *b, int64_t now)
{
    struct rs_sim_pool *p = b->pool;

    count_load(p, now);
    rs_list_remove(&r->link);
    p->working -= !b->slots.remote;
    r->backend = NULL;
    r->pool = NULL;
    r->state = RS_SIM_OUTSIDE;
    rs_queue_release(&p->queue, &b->slots, now);
}

void rs_sim_pool_remove(struct rs_sim_backend *b, int64_t now,
                        void (*lost)(struct rs_sim_request *r, void *arg), void *arg)
{
    struct rs_sim_pool *p = b->pool;
    struct rs_list gone;

    if (!p)
        return;
    b->slots.admitted = false;
    rs_list_init(&gone);
    while (!rs_list_empty(&b->requests)) {
        struct rs_sim_request *r = rs_container_of(b->requests.next, struct rs_sim_request, link);

        unbind(r, b, now);
        rs_list_push_back(&gone, &r->link);
    }
    rs_queue_remove_slots(&p->queue, &b->slots);
    b->pool = NULL;
    for (struct rs_list *it; (it = rs_list_pop_front(&gone));)
        lost(rs_container_of(it, struct rs_sim_request, link), arg);
    rs_sim_pool_pump(p, now);
}

void rs_sim_pool_submit(struct rs_sim_pool *p, struct rs_sim_request *r, int64_t now)
{
    struct rs_waiter *displaced = NULL;
    int full;

    rs_list_init(&r->link);
    if (is_closed(p)) {
        refuse(p, r, RS_SIM_CLOSED);
        return;
    }
    count_load(p, now);
    r->pool = p;
    r->state = RS_SIM_WAITS;
    full = rs_queue_put(&p->queue, &r->waiter, now, &displaced);
    if (displaced)
        refuse(p, of(displaced), RS_SIM_FULL);
    if (full == RS_QUEUE_FULL)
        refuse(p, r, RS_SIM_FULL);
    rs_sim_pool_pump(p, now);
}

void rs_sim_pool_done(struct rs_sim_request *r, int64_t now)
{
    struct rs_sim_backend *b = r->backend;
    struct rs_sim_pool *p = b->pool;

    if (r->waiter.deadline)
        rs_queue_took(&p->queue, now - r->started, true);
    b->done++;
    unbind(r, b, now);
    if (b->retired && b->slots.in_flight == 0)
        p->ops->idle(b, p->arg);
    rs_sim_pool_pump(p, now);
}

bool rs_sim_pool_cancel(struct rs_sim_request *r, int64_t now)
{
    struct rs_sim_pool *p = r->pool;

    if (r->state != RS_SIM_WAITS)
        return false;
    count_load(p, now);
    rs_queue_cancel(&p->queue, &r->waiter, now);
    r->state = RS_SIM_OUTSIDE;
    r->pool = NULL;
    rs_sim_pool_pump(p, now);
    return true;
}

int64_t rs_sim_pool_deadline(const struct rs_sim_pool *p, int64_t now)
{
    return rs_queue_deadline(&p->queue, now);
}

uint64_t rs_sim_pool_load_us(struct rs_sim_pool *p, int64_t now)
{
    count_load(p, now);
    p->alarm = p->queue.queued + p->working == 0;
    return p->load_us;
}
