/* Requests of the trace: the ingress deployment works on one, then calls the others that the trace names,
 * one after the other, and keeps its slot until the last has answered. */
#include "cmd/simulate_internal.h"

#include <stdlib.h>

const char *const rs_sim_end_names[RS_SIM_ENDS] = {
    [RS_SIM_ANSWERED] = "answered",
    [RS_SIM_END_FULL] = "queue_full",
    [RS_SIM_END_SHED] = "shed",
    [RS_SIM_END_TIMEOUT] = "timeout",
    [RS_SIM_END_UNAVAILABLE] = "unavailable",
};

static struct rs_sim_call *of(struct rs_sim_request *r)
{
    return rs_container_of(r, struct rs_sim_call, request);
}

/* --- figures ------------------------------------------------------------------------------------- */

void rs_sim_count(struct rs_sim_served *s)
{
    struct rs_sim_world *w = s->world;
    int64_t from = s->at > w->begins ? s->at : w->begins;
    double span = w->now > from ? (double)(w->now - from) : 0;

    s->at = w->now;
    s->queued += span * s->pool.queue.queued;
    s->busy += span * s->pool.working;
    s->up += span * s->running;
}

static void look_at(struct rs_sim_served *s)
{
    unsigned queued = s->pool.queue.queued;

    s->peak = queued > s->peak ? queued : s->peak;
    s->figures.queued_max = queued > s->figures.queued_max ? queued : s->figures.queued_max;
}

static void look_at_replicas(struct rs_sim_served *s)
{
    struct rs_sim_deployment_figures *f = &s->figures;

    f->replicas_max = s->running > f->replicas_max ? s->running : f->replicas_max;
    f->replicas_min = s->running < f->replicas_min ? s->running : f->replicas_min;
}

void rs_sim_step_end(struct rs_sim_world *w)
{
    for (size_t i = 0; i < rs_map_slots(&w->served); i++) {
        struct rs_sim_served *s = rs_map_at(&w->served, i, NULL);

        if (!s || w->step >= RS_SIM_STEPS)
            continue;
        s->figures.steps[w->step] = (struct rs_sim_step){.replicas = s->running, .queued = s->peak};
        s->peak = s->pool.queue.queued;
    }
    w->step++;
}

static unsigned step_of(const struct rs_sim_world *w, int64_t at)
{
    double span = w->result->span_s * 1e9;
    double step = span > 0 ? (double)(at - w->begins) / span * RS_SIM_STEPS : 0;

    return step >= RS_SIM_STEPS ? RS_SIM_STEPS - 1 : step > 0 ? (unsigned)step : 0;
}

void rs_sim_report_figures(struct rs_sim_world *w, struct rs_report *r)
{
    for (size_t i = 0; i < r->n_deployments; i++) {
        struct rs_report_deployment *d = &r->deployments[i];
        struct rs_sim_served *s = rs_sim_serve(w, d->app, d->name);

        d->queued = s->pool.queue.queued;
        d->load_us = rs_sim_pool_load_us(&s->pool, w->now);
        w->busy |= d->queued > 0;
    }
    for (size_t i = 0; i < r->n_replicas; i++) {
        const struct rs_sim_process *p = rs_map_get(&w->processes, r->replicas[i].replica_id);

        r->replicas[i].in_flight = p && p->backend.pool ? p->backend.slots.in_flight : 0;
        r->replicas[i].done = p ? p->backend.done : 0;
        w->busy |= r->replicas[i].in_flight > 0;
    }
}

/* --- life of a request --------------------------------------------------------------------------- */

static struct rs_sim_call *call_new(struct rs_sim_world *w, struct rs_sim_asked *asked,
                                    struct rs_sim_served *s, struct rs_sim_call *from)
{
    struct rs_sim_call *c = rs_alloc(sizeof(*c));

    c->world = w;
    c->asked = asked;
    c->of = s;
    c->from = from;
    c->request.waiter.deadline = s->timeout > 0 ? asked->came + s->timeout : 0;
    if (from)
        from->calls = c;
    w->under_way++;
    s->figures.calls++;
    return c;
}

/* Frees it, once nothing will ask for it any more. */
static void settle(struct rs_sim_call *c)
{
    if (!c->over || c->known || c->calls || c->request.state != RS_SIM_OUTSIDE)
        return;
    c->world->under_way--;
    if (!c->from)
        free(c->asked);
    free(c);
}

static void end(struct rs_sim_asked *a, struct rs_sim_world *w, enum rs_sim_end how)
{
    struct rs_sim_app_figures *f = a->app;

    if (a->ended)
        return;
    a->ended = true;
    f->ends[how]++;
    w->result->missed[step_of(w, a->came)] += how != RS_SIM_ANSWERED;
    if (how != RS_SIM_ANSWERED)
        return;
    f->latencies_s = rs_grow(f->latencies_s, &f->cap, f->n + 1, sizeof(*f->latencies_s));
    f->latencies_s[f->n++] = (double)(w->now - a->came) / 1e9;
}

static void submit(struct rs_sim_call *c)
{
    struct rs_sim_served *s = c->of;

    rs_sim_count(s);
    c->known++;
    rs_sim_pool_submit(&s->pool, &c->request, c->world->now);
    look_at(s);
    rs_sim_served_settle(s);
    c->known--;
    settle(c);
}

/* The slot is free. */
static void done(struct rs_sim_call *c)
{
    struct rs_sim_served *s = c->of;

    rs_sim_count(s);
    c->known++;
    c->over = true;
    rs_sim_pool_done(&c->request, c->world->now);
    rs_sim_served_settle(s);
    c->known--;
}

static void go_on(struct rs_sim_call *c);

static void ev_worked(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_call *c = e->of, *from = c->from;
    bool runs = c->request.state == RS_SIM_RUNS;

    c->known--;
    if (runs && !from) {
        go_on(c);
    } else if (runs) {
        from->calls = NULL;
        done(c);
        settle(c);
        go_on(from);
    } else {
        settle(c);
    }
}

/* The next call, or the answer. */
static void go_on(struct rs_sim_call *c)
{
    struct rs_sim_world *w = c->world;
    const struct rs_sim_arrival *a = c->asked->arrival;
    const struct rs_sim_work *work;

    if (c->request.state != RS_SIM_RUNS) { /* its replica is gone */
        settle(c);
        return;
    }
    if (c->asked->ended || c->next >= a->works) {
        end(c->asked, w, RS_SIM_ANSWERED);
        done(c);
        settle(c);
        return;
    }
    work = &w->conf->trace->works[a->work + c->next++];
    c->calls = call_new(w, c->asked, rs_sim_serve(w, c->asked->app->name, work->deployment), c);
    c->calls->work = work;
    submit(c->calls);
}

/* It has no slot and gets none. */
static void failed(struct rs_sim_call *c, enum rs_sim_end how)
{
    struct rs_sim_call *from = c->from;

    c->over = true;
    end(c->asked, c->world, how);
    if (from) {
        from->calls = NULL;
        if (from->request.state == RS_SIM_RUNS)
            done(from);
        settle(from);
    }
    settle(c);
}

static void ev_timeout(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_call *c = e->of, *waits = c->calls ? c->calls : c;

    c->known--;
    if (c->over || c->asked->ended) {
        settle(c);
        return;
    }
    rs_sim_count(waits->of);
    if (rs_sim_pool_cancel(&waits->request, c->world->now))
        failed(waits, RS_SIM_END_TIMEOUT);
    else
        end(c->asked, c->world, RS_SIM_END_TIMEOUT); /* the work goes on to its end */
}

/* --- the ops of a pool --------------------------------------------------------------------------- */

static void on_start(struct rs_sim_request *r, struct rs_sim_backend *b, void *arg)
{
    struct rs_sim_call *c = of(r);
    struct rs_sim_world *w = c->world;

    c->known++;
    rs_sim_post(&w->events, (struct rs_sim_event){.at = w->now + rs_sim_ns(c->work->service_s),
                                                  .fn = ev_worked,
                                                  .of = c,
                                                  .id = 1});
}

static void on_refused(struct rs_sim_request *r, enum rs_sim_refusal why, void *arg)
{
    static const enum rs_sim_end ends[RS_SIM_REFUSALS] = {[RS_SIM_FULL] = RS_SIM_END_FULL,
                                                          [RS_SIM_SHED] = RS_SIM_END_SHED,
                                                          [RS_SIM_EXPIRED] = RS_SIM_END_TIMEOUT,
                                                          [RS_SIM_CLOSED] = RS_SIM_END_UNAVAILABLE};

    failed(of(r), ends[why]);
}

static void ev_idle(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_world *w = arg;
    const char *id = rs_json_str(e->data, "id", "");

    if (rs_map_get(&w->processes, id))
        rs_agent_idle(w->agent, id, w->now);
}

static void on_idle(struct rs_sim_backend *b, void *arg)
{
    const struct rs_sim_process *p = rs_container_of(b, struct rs_sim_process, backend);

    rs_sim_at(p->world, p->world->now, ev_idle, NULL, json_pack("{s:s}", "id", p->id), 0);
}

static void ev_load(struct rs_sim_event *e, void *arg)
{
    /* the node looks when it is to report */
}

static void on_load(struct rs_sim_pool *p, void *arg)
{
    struct rs_sim_world *w = arg;

    w->dirty |= !rs_queue_open(&p->queue);
    w->busy = true;
    rs_sim_at(w, w->now, ev_load, NULL, NULL, 0);
}

static const struct rs_sim_pool_ops pool_ops = {
    .start = on_start, .refused = on_refused, .idle = on_idle, .load = on_load};

void rs_sim_lost(struct rs_sim_request *r, void *arg)
{
    failed(of(r), RS_SIM_END_UNAVAILABLE);
}

struct rs_sim_served *rs_sim_serve(struct rs_sim_world *w, const char *app, const char *deployment)
{
    rs_auto(rs_freep) char *key = rs_asprintf("%s#%s", app, deployment);
    struct rs_sim_served *s = rs_map_get(&w->served, key);

    if (s)
        return s;
    s = rs_alloc(sizeof(*s));
    s->world = w;
    s->wake_at = INT64_MAX;
    s->at = w->now;
    s->figures.app = rs_strdup(app);
    s->figures.name = rs_strdup(deployment);
    s->figures.replicas_min = UINT32_MAX;
    rs_sim_pool_init(&s->pool, &pool_ops, w);
    s->pool.load_at = w->now;
    rs_map_put(&w->served, key, s);
    return s;
}

static void ev_queue(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_served *s = e->of;

    s->wake_at = INT64_MAX;
    rs_sim_count(s);
    rs_sim_pool_pump(&s->pool, s->world->now);
    rs_sim_served_settle(s);
}

void rs_sim_served_settle(struct rs_sim_served *s)
{
    struct rs_sim_world *w = s->world;
    int64_t at = rs_sim_pool_deadline(&s->pool, w->now);

    if (w->now >= w->begins && s->figures.calls > 0)
        look_at_replicas(s);
    if (!at || at >= s->wake_at)
        return;
    s->wake_at = at > w->now ? at : w->now;
    rs_sim_post(&w->events,
                (struct rs_sim_event){.at = s->wake_at, .fn = ev_queue, .of = s, .id = 1});
}

/* --- arrivals ------------------------------------------------------------------------------------ */

static struct rs_sim_app_figures *figures_of(struct rs_sim_world *w, const char *app)
{
    for (size_t i = 0; i < w->result->n_apps; i++)
        if (strcmp(w->result->apps[i].name, app) == 0)
            return &w->result->apps[i];
    return NULL;
}

static void ev_arrive(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_world *w = arg;
    const struct rs_sim_arrival *a = &w->conf->trace->arrivals[w->next_arrival++];
    const char *ingress = rs_map_get(&w->ingresses, a->app);
    struct rs_sim_served *s = rs_sim_serve(w, a->app, ingress);
    struct rs_sim_asked *asked = rs_alloc(sizeof(*asked));
    struct rs_sim_call *c;

    *asked = (struct rs_sim_asked){.arrival = a, .app = figures_of(w, a->app), .came = w->now};
    w->result->arrivals[step_of(w, w->now)]++;
    c = call_new(w, asked, s, NULL);
    c->work = &w->conf->trace->works[a->work];
    c->next = 1;
    if (s->timeout > 0) {
        c->known++;
        rs_sim_post(&w->events, (struct rs_sim_event){
                                    .at = w->now + s->timeout, .fn = ev_timeout, .of = c, .id = 1});
    }
    submit(c);
    rs_sim_arrivals(w);
}

void rs_sim_arrivals(struct rs_sim_world *w)
{
    const struct rs_sim_trace *t = w->conf->trace;

    if (w->next_arrival < t->n)
        rs_sim_post(&w->events, (struct rs_sim_event){
                                    .at = w->begins + rs_sim_ns(t->arrivals[w->next_arrival].t -
                                                                t->arrivals[0].t),
                                    .fn = ev_arrive,
                                    .id = 1});
}

/* --- the end ------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

void rs_sim_requests_end(struct rs_sim_world *w)
{
    struct rs_sim_result *r = w->result;
    double span = w->now > w->begins ? (double)(w->now - w->begins) : 1;

    r->deployments = rs_alloc((rs_map_count(&w->served) + 1) * sizeof(*r->deployments));
    for (size_t i = 0; i < rs_map_slots(&w->served); i++) {
        struct rs_sim_served *s = rs_map_at(&w->served, i, NULL);

        rs_sim_count(s);
        s->figures.replicas = s->running;
        s->figures.replicas_min = s->figures.calls == 0 ? s->running : s->figures.replicas_min;
        s->figures.replicas_max = s->figures.calls == 0 ? s->running : s->figures.replicas_max;
        s->figures.queued_mean = s->queued / span;
        s->figures.busy_mean = s->busy / span;
        s->figures.replicas_mean = s->up / span;
        r->deployments[r->n_deployments++] = s->figures;
    }
    for (size_t i = 0; i < r->n_apps; i++)
        if (r->apps[i].n > 0)
            qsort(r->apps[i].latencies_s, r->apps[i].n, sizeof(double), by_size);
}
