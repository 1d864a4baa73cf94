/* Requests: they enter at the nodes in turn, wait in the production queues, and take the time that the
 * script says. A calls B where there is one; a node passes on to others what its own replicas cannot
 * take. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOP RS_MS
#define PATIENCE (10 * RS_SEC) /* deadline of a request */
#define TRIES 2

static struct sim_request *of(struct rs_sim_request *r)
{
    return rs_container_of(r, struct sim_request, base);
}

static struct sim *sim_of(const struct sim_request *r)
{
    return r->node->sim;
}

/* --- life ---------------------------------------------------------------------------------------- */

static struct sim_request *request_new(struct sim_node *n, int app, int deployment,
                                       struct sim_request *from)
{
    struct sim_request *r = rs_alloc(sizeof(*r));
    struct sim *s = n->sim;

    *r = (struct sim_request){.node = n, .app = app, .deployment = deployment, .from = from};
    r->deadline = from ? from->deadline : s->now + PATIENCE;
    r->service = s->apps[app].service;
    r->base.waiter.deadline = r->deadline;
    rs_list_init(&r->all);
    rs_list_init(&r->base.link);
    rs_list_push_back(&s->requests, &r->all);
    s->n_requests++;
    if (from)
        from->part = r;
    return r;
}

void sim_request_settle(struct sim_request *r)
{
    if (r->pending || !r->ended || r->base.state != RS_SIM_OUTSIDE || r->part)
        return;
    rs_list_remove(&r->all);
    free(r);
}

void sim_requests_drop(struct sim *s)
{
    for (struct rs_list *it; (it = rs_list_pop_front(&s->requests));)
        free(rs_container_of(it, struct sim_request, all));
}

static void part_ended(struct sim_request *r, bool ok);

/* Its answer, whatever it is, goes to who asked. */
static void end(struct sim_request *r, bool ok)
{
    struct sim *s = sim_of(r);
    struct sim_request *from = r->from;

    if (r->ended++)
        sim_violate(s, "ends-once", "a request for %s got a second answer", sim_app_names[r->app]);
    s->n_ended++;
    if (from && from->part == r) {
        from->part = NULL;
        r->from = NULL;
        part_ended(from, ok);
    }
    sim_request_settle(r);
}

/* Something that happens to it at its node; for its present attempt only. */
static void later(struct sim_request *r, int64_t delay, void (*fn)(struct sim_note *note))
{
    struct sim_note *note = sim_later(sim_of(r), delay, fn, r->node);

    note->request = r;
    note->number = r->attempts;
    r->pending++;
}

static bool is_stale(const struct sim_note *note)
{
    return note->request->attempts != (unsigned)note->number ||
           note->request->base.state != RS_SIM_RUNS;
}

/* --- work ---------------------------------------------------------------------------------------- */

static void done(struct sim_request *r, bool ok)
{
    struct sim_pool *p = rs_container_of(r->base.pool, struct sim_pool, pool);

    r->pending++; /* what is freed by this may end it */
    rs_sim_pool_done(&r->base, sim_of(r)->now);
    sim_pool_settle(p);
    if (!r->ended || r->careless)
        end(r, ok);
    r->pending--;
    sim_request_settle(r);
}

static void ev_done(struct sim_note *note)
{
    if (!is_stale(note))
        done(note->request, true);
}

static void submit(struct sim_request *r)
{
    struct sim_pool *p = sim_pool_get(r->node, r->app, r->deployment, false);

    if (!p) {
        end(r, false);
        return;
    }
    r->pending++;
    rs_sim_pool_submit(&p->pool, &r->base, sim_of(r)->now);
    sim_pool_settle(p);
    r->pending--;
    sim_request_settle(r);
}

static void ev_deadline(struct sim_note *note)
{
    struct sim_request *r = note->request;

    if (r->ended || r->forgotten)
        return;
    rs_sim_pool_cancel(&r->base, note->sim->now);
    end(r, false);
}

static void ev_call(struct sim_note *note)
{
    struct sim_request *r = note->request, *part;

    if (is_stale(note))
        return;
    part = request_new(r->node, r->app, SIM_B, r);
    later(part, part->deadline - note->sim->now, ev_deadline);
    submit(part);
}

static void part_ended(struct sim_request *r, bool ok)
{
    bool forwarded = r->base.backend && r->base.backend->slots.remote;

    if (r->base.state != RS_SIM_RUNS)
        sim_request_settle(r);
    else if (!ok || forwarded)
        done(r, ok);
    else
        later(r, r->service / 2, ev_done);
}

/* --- other nodes --------------------------------------------------------------------------------- */

static void forward(struct sim_request *r, const char *node_id, int64_t delay);

static void ev_forward(struct sim_note *note)
{
    struct sim *s = note->sim;
    struct sim_request *r = note->request, *part;
    struct sim_node *to = sim_node_find(s, note->id);

    if (is_stale(note))
        return;
    if (to && to->agent && to->paused_until > s->now) {
        forward(r, note->id, to->paused_until - s->now);
        return;
    }
    if (!to || !to->agent || s->now < to->away_until || s->now < r->node->away_until) {
        done(r, false);
        return;
    }
    part = request_new(to, r->app, r->deployment, r);
    part->base.waiter.local_only = true;
    later(part, part->deadline > s->now ? part->deadline - s->now : 0, ev_deadline);
    submit(part);
}

static void forward(struct sim_request *r, const char *node_id, int64_t delay)
{
    struct sim_note *note = sim_later(sim_of(r), delay, ev_forward, r->node);

    snprintf(note->id, sizeof(note->id), "%s", node_id);
    note->request = r;
    note->number = r->attempts;
    r->pending++;
}

void sim_pool_remote(struct sim_pool *p, const char *node_id, const char *version, unsigned slots)
{
    rs_auto(rs_freep) char *key = rs_asprintf("%s %s", node_id, version);
    struct sim_remote *m = rs_map_get(&p->remotes, key);
    int64_t now = p->node->sim->now;

    if (!m && !slots)
        return;
    if (!m) {
        m = rs_alloc(sizeof(*m));
        snprintf(m->node_id, sizeof(m->node_id), "%s", node_id);
        rs_map_put(&p->remotes, key, m);
        rs_sim_pool_add(&p->pool, &m->backend, slots, true, now);
    }
    rs_sim_pool_resize(&m->backend, slots, now);
}

/* --- pools --------------------------------------------------------------------------------------- */

static bool calls_b(const struct sim_proc *p)
{
    return p->deployment == SIM_A && p->code.side;
}

static void on_start(struct rs_sim_request *base, struct rs_sim_backend *b, void *arg)
{
    struct sim_request *r = of(base);
    struct sim *s = sim_of(r);
    const struct sim_proc *p;

    r->attempts++;
    if (b->slots.remote) {
        forward(r, rs_container_of(b, struct sim_remote, backend)->node_id, HOP);
        return;
    }
    p = rs_container_of(b, struct sim_proc, backend);
    if (b->slots.in_flight > (unsigned)s->apps[r->app].most_ongoing)
        sim_violate(s, "ongoing", "replica %s of %s#%c has %u requests, max_ongoing_requests is %d",
                    p->id, sim_app_names[r->app], 'A' + r->deployment, b->slots.in_flight,
                    (int)s->apps[r->app].most_ongoing);
    if (!p->hangs)
        later(r, calls_b(p) ? r->service / 2 : r->service, calls_b(p) ? ev_call : ev_done);
}

static void on_refused(struct rs_sim_request *base, enum rs_sim_refusal why, void *arg)
{
    struct sim_request *r = of(base);

    if (!r->ended)
        end(r, false);
    else
        sim_request_settle(r);
}

static void ev_idle(struct sim_note *note)
{
    const struct sim_proc *p = rs_map_get(&note->node->procs, note->id);

    if (p && p->serial == note->serial)
        rs_agent_idle(note->node->agent, note->id, note->sim->now);
}

static void on_idle(struct rs_sim_backend *b, void *arg)
{
    const struct sim_proc *p = rs_container_of(b, struct sim_proc, backend);
    struct sim_note *note = sim_later(p->node->sim, 0, ev_idle, p->node);

    note->serial = p->serial;
    snprintf(note->id, sizeof(note->id), "%s", p->id);
}

static void on_load(struct rs_sim_pool *p, void *arg)
{
    struct sim_node *n = arg;

    n->dirty |= !rs_queue_open(&p->queue);
    n->busy = true;
    if (n->agent)
        sim_node_settle(n);
}

static const struct rs_sim_pool_ops pool_ops = {
    .start = on_start, .refused = on_refused, .idle = on_idle, .load = on_load};

struct sim_pool *sim_pool_get(struct sim_node *n, int app, int deployment, bool make)
{
    char key[] = {(char)('0' + app), '#', (char)('0' + deployment), '\0'};
    struct sim_pool *p = rs_map_get(&n->pools, key);

    if (p || !make)
        return p;
    p = rs_alloc(sizeof(*p));
    p->node = n;
    p->app = app;
    p->deployment = deployment;
    p->wake_at = INT64_MAX;
    rs_sim_pool_init(&p->pool, &pool_ops, n);
    p->pool.load_at = n->sim->now;
    rs_map_put(&n->pools, key, p);
    return p;
}

static void ev_pool(struct sim_note *note)
{
    struct sim_pool *p = rs_map_get(&note->node->pools, note->id);

    if (!p)
        return;
    p->wake_at = INT64_MAX;
    rs_sim_pool_pump(&p->pool, note->sim->now);
    sim_pool_settle(p);
}

void sim_pool_settle(struct sim_pool *p)
{
    struct sim *s = p->node->sim;
    int64_t at = rs_sim_pool_deadline(&p->pool, s->now);
    struct sim_note *note;

    if (!at || at >= p->wake_at)
        return;
    p->wake_at = at;
    note = sim_later(s, at > s->now ? at - s->now : 0, ev_pool, p->node);
    snprintf(note->id, sizeof(note->id), "%d#%d", p->app, p->deployment);
}

void sim_pool_free(struct sim_pool *p)
{
    struct sim *s;

    if (!p)
        return;
    s = p->node->sim;
    for (size_t i = 0; i < rs_map_slots(&p->remotes); i++) {
        struct sim_remote *m = rs_map_at(&p->remotes, i, NULL);

        rs_sim_pool_remove(&m->backend, s->now, sim_lost, s);
        free(m);
    }
    rs_map_fini(&p->remotes);
    rs_sim_pool_fini(&p->pool, s->now);
    free(p);
}

/* --- loss ---------------------------------------------------------------------------------------- */

void sim_lost(struct rs_sim_request *base, void *arg)
{
    struct sim *s = arg;
    struct sim_request *r = of(base);

    if (r->part)
        r->part->from = NULL;
    r->part = NULL;
    if (r->ended) {
        sim_request_settle(r);
        return;
    }
    if (s->mutation == SIM_MUTATION_NO_END) {
        r->forgotten = true;
        return;
    }
    if (s->mutation == SIM_MUTATION_TWO_ENDS) {
        r->careless = true;
        r->pending++;
        end(r, false);
        r->pending--;
    }
    if (r->attempts >= TRIES || !r->node->agent)
        end(r, false);
    else
        submit(r);
}

void sim_requests_of_gone(struct sim_node *n)
{
    struct sim *s = n->sim;

    rs_list_for_each (it, &s->requests) {
        struct sim_request *r = rs_container_of(it, struct sim_request, all);

        if (r->node != n || r->ended)
            continue;
        r->pending++;
        rs_sim_pool_cancel(&r->base, s->now);
        if (!r->ended)
            end(r, false);
        it_next = it->next; /* others may have ended with it */
        r->pending--;
        sim_request_settle(r);
    }
}

/* --- load ---------------------------------------------------------------------------------------- */

static struct sim_node *entry(struct sim *s, int app)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        struct sim_node *n = &s->nodes[s->entry++ % s->n_nodes];

        if (n->sim && n->agent && s->now >= n->paused_until && sim_pool_get(n, app, SIM_A, false))
            return n;
    }
    return NULL;
}

static void arrive(struct sim_note *note)
{
    struct sim *s = note->sim;
    int app = (int)note->number;
    struct sim_node *n;
    struct sim_request *r;
    struct sim_note *next;

    if (!s->apps[app].rate || note->serial != s->apps[app].load_life)
        return;
    next = sim_later(s, RS_SEC / s->apps[app].rate, arrive, NULL);
    next->number = app;
    next->serial = note->serial;
    n = entry(s, app);
    if (!n)
        return; /* refused at the door */
    r = request_new(n, app, SIM_A, NULL);
    later(r, PATIENCE, ev_deadline);
    submit(r);
    sim_node_settle(n);
}

void sim_load(struct sim *s, int app, int64_t rate, int64_t service)
{
    struct sim_note *note;

    s->apps[app].rate = rate;
    s->apps[app].service = service;
    s->apps[app].load_life++;
    sim_check_steady(s, app);
    if (rate <= 0)
        return;
    note = sim_later(s, 0, arrive, NULL);
    note->number = app;
    note->serial = s->apps[app].load_life;
}
