#include "cmd/simulate_internal.h"

#include "core/base/buf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* As in cmd/node.c. */
#define REPORT_GAP (5 * RS_MS)
#define REPORT_BUSY (200 * RS_MS)
#define REPORT_EVERY RS_SEC

#define NODE "n0"
#define SETTLE (3600 * RS_SEC)     /* bound of the time until the applications run */
#define AFTERWARDS (3600 * RS_SEC) /* the last answers come within that time */

int64_t rs_sim_ns(double seconds)
{
    double ns = seconds * 1e9;

    return ns >= 1e17 ? (int64_t)1e17 : ns > 0 ? (int64_t)llround(ns) : 0;
}

void rs_sim_note(struct rs_sim_result *r, char *text)
{
    for (size_t i = 0; i < r->n_notes; i++)
        if (strcmp(r->notes[i], text) == 0) {
            free(text);
            return;
        }
    r->notes = rs_grow(r->notes, &r->cap_notes, r->n_notes + 1, sizeof(*r->notes));
    r->notes[r->n_notes++] = text;
}

/* --- time ---------------------------------------------------------------------------------------- */

void rs_sim_at(struct rs_sim_world *w, int64_t at, void (*fn)(struct rs_sim_event *e, void *arg),
               void *of, json_t *data, int64_t kind)
{
    rs_sim_post(&w->events,
                (struct rs_sim_event){.at = at, .fn = fn, .of = of, .data = data, .kind = kind});
}

static int64_t report_at(const struct rs_sim_world *w)
{
    return w->reported_at + (w->dirty ? REPORT_GAP : w->busy ? REPORT_BUSY : REPORT_EVERY);
}

static void report(struct rs_sim_world *w)
{
    rs_auto(rs_report_freep) struct rs_report *r = rs_agent_report(w->agent, w->now);
    rs_auto(rs_json_decrefp) json_t *j = NULL;
    struct rs_error err = {0};

    w->dirty = w->busy = false;
    rs_sim_report_figures(w, r);
    w->reported_at = w->now;
    j = rs_report_to_json(r);
    if (rs_controller_report(w->controller, NODE, j, w->now, &err) < 0)
        rs_sim_note(w->result, rs_asprintf("a report was refused: %s", err.msg));
}

static void ev_node(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_world *w = arg;

    w->node_at = INT64_MAX;
    if (rs_agent_deadline(w->agent) <= w->now)
        rs_agent_tick(w->agent, w->now);
    if (report_at(w) <= w->now)
        report(w);
}

static void ev_head(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_world *w = arg;

    w->head_at = INT64_MAX;
    if (rs_controller_deadline(w->controller) <= w->now)
        rs_controller_tick(w->controller, w->now);
}

static void wake(struct rs_sim_world *w, int64_t at, int64_t *due,
                 void (*fn)(struct rs_sim_event *e, void *arg))
{
    if (at >= *due)
        return;
    *due = at > w->now ? at : w->now;
    rs_sim_at(w, *due, fn, NULL, NULL, 0);
}

void rs_sim_node_settle(struct rs_sim_world *w)
{
    int64_t node = rs_agent_deadline(w->agent), at = report_at(w);

    wake(w, at < node ? at : node, &w->node_at, ev_node);
    wake(w, rs_controller_deadline(w->controller), &w->head_at, ev_head);
}

/* False: nothing happens until then. */
static bool step(struct rs_sim_world *w, int64_t until)
{
    struct rs_sim_event e;

    if (!rs_sim_take(&w->events, until, &e))
        return false;
    w->now = e.at > w->now ? e.at : w->now;
    w->result->events++;
    e.fn(&e, w);
    json_decref(e.data);
    if (e.id == 0) /* requests are no news for the control plane until it is told of them */
        rs_sim_node_settle(w);
    return true;
}

/* --- between head and node ----------------------------------------------------------------------- */

static void ev_target(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_world *w = arg;
    struct rs_error err = {0};

    if (rs_agent_target(w->agent, e->data, w->now, &err) < 0)
        rs_sim_note(w->result, rs_asprintf("a target was refused: %s", err.msg));
}

static void ev_build(struct rs_sim_event *e, void *arg)
{
    struct rs_sim_world *w = arg;
    struct rs_error err = {0};

    if (rs_agent_build(w->agent, e->data, w->now, &err) < 0)
        rs_sim_note(w->result, rs_asprintf("a build was refused: %s", err.msg));
}

static void op_target(const char *node_id, const json_t *target, void *arg)
{
    struct rs_sim_world *w = arg;

    rs_sim_at(w, w->now, ev_target, NULL, json_deep_copy(target), 0);
}

static void op_build(const char *node_id, const json_t *build, void *arg)
{
    struct rs_sim_world *w = arg;

    rs_sim_at(w, w->now, ev_build, NULL, json_deep_copy(build), 0);
}

static void op_core(const char *node_id, const json_t *down, void *arg)
{
}

static const struct rs_controller_ops ops = {
    .target = op_target, .build = op_build, .core = op_core};

/* --- beginning ----------------------------------------------------------------------------------- */

static int join(struct rs_sim_world *w, struct rs_error *err)
{
    const struct rs_sim_conf *c = w->conf;
    double t = c->trace->arrivals[0].t;
    struct rs_controller_conf head = {.node_id = NODE, .wall_offset_s = t};
    struct rs_agent_conf agent = {.node_id = NODE, .resources = c->resources, .wall_offset_s = t};
    struct rs_controller_node node = {
        .node_id = NODE, .name = "the node", .version = "", .resources = c->resources};

    if (rs_controller_new(&w->controller, &head, &ops, w, err) < 0 ||
        rs_agent_new(&w->agent, &agent, &rs_sim_process_ops, w, err) < 0 ||
        rs_controller_node_joined(w->controller, &node, w->now, err) < 0) {
        rs_config_free(c->config);
        return -1;
    }
    w->dirty = true;
    return rs_controller_apply(w->controller, c->config, w->now, err);
}

/* What came over to people when it is not all well. */
static int not_running(struct rs_sim_world *w, struct rs_error *err)
{
    struct rs_controller_summary s;
    rs_auto(rs_buf_fini) struct rs_buf why = {0};

    rs_controller_summary(w->controller, &s);
    for (size_t i = 0; i < s.n_apps; i++) {
        const struct rs_controller_app_summary *a = &s.apps[i];

        if (strcmp(a->status, "RUNNING") == 0)
            continue;
        rs_buf_printf(&why, "%sapplication '%s' does not come up: %s %s",
                      rs_buf_len(&why) ? "; " : "", a->name, a->status, a->message);
        for (size_t k = 0; k < a->n_deployments; k++)
            if (a->deployments[k].blocked)
                rs_buf_printf(&why, " (%s: %s)", a->deployments[k].name, a->deployments[k].blocked);
    }
    rs_controller_summary_fini(&s);
    return rs_buf_len(&why) ? rs_error_set(err, RS_INVALID, "%.400s", rs_buf_text(&why)) : 0;
}

static bool is_settled(struct rs_sim_world *w)
{
    struct rs_controller_summary s;
    bool settled;

    rs_controller_summary(w->controller, &s);
    settled = s.settled;
    rs_controller_summary_fini(&s);
    return settled;
}

static bool is_blocked(struct rs_sim_world *w)
{
    struct rs_controller_summary s;
    bool blocked = false;

    rs_controller_summary(w->controller, &s);
    for (size_t i = 0; i < s.n_apps; i++)
        for (size_t k = 0; k < s.apps[i].n_deployments; k++)
            blocked |= s.apps[i].deployments[k].blocked != NULL;
    rs_controller_summary_fini(&s);
    return blocked;
}

/* All applications run before the first request comes; those for which there is no room may wait for it. */
static int come_up(struct rs_sim_world *w, struct rs_error *err)
{
    int64_t patience = w->now + 2 * w->conf->start_time + 10 * RS_SEC;

    w->begins = INT64_MAX;
    rs_sim_node_settle(w);
    while (!is_settled(w) && step(w, SETTLE) && !(w->now > patience && is_blocked(w)))
        ;
    return not_running(w, err);
}

/* --- the run ------------------------------------------------------------------------------------- */

static void ev_step(struct rs_sim_event *e, void *arg)
{
    rs_sim_step_end(arg);
}

/* Nobody waits for ever. */
static void give_up(struct rs_sim_world *w)
{
    if (w->under_way == 0)
        return;
    rs_sim_note(w->result, rs_asprintf("%zu requests had no answer an hour after the last one came",
                                       w->under_way));
    rs_sim_processes_fini(w);
    for (size_t i = 0; i < rs_map_slots(&w->served); i++)
        rs_sim_pool_fini(&((struct rs_sim_served *)rs_map_at(&w->served, i, NULL))->pool, w->now);
}

static void run(struct rs_sim_world *w)
{
    const struct rs_sim_trace *t = w->conf->trace;
    double span = t->arrivals[t->n - 1].t - t->arrivals[0].t;
    int64_t end;

    w->begins = w->now;
    w->result->span_s = span;
    for (unsigned i = 1; i <= RS_SIM_STEPS; i++)
        rs_sim_post(&w->events,
                    (struct rs_sim_event){.at = w->begins + rs_sim_ns(span / RS_SIM_STEPS * i),
                                          .fn = ev_step,
                                          .id = 1});
    rs_sim_arrivals(w);
    end = w->begins + rs_sim_ns(span) + AFTERWARDS;
    while ((w->next_arrival < t->n || w->under_way > 0 || w->step < RS_SIM_STEPS) && step(w, end))
        ;
    give_up(w);
    rs_sim_requests_end(w);
}

static void world_fini(struct rs_sim_world *w)
{
    struct rs_sim_event e;

    while (rs_sim_take(&w->events, INT64_MAX, &e))
        json_decref(e.data);
    rs_sim_processes_fini(w);
    while (rs_sim_take(&w->events, INT64_MAX, &e))
        json_decref(e.data);
    rs_sim_events_fini(&w->events);
    for (size_t i = 0; i < rs_map_slots(&w->served); i++) {
        struct rs_sim_served *s = rs_map_at(&w->served, i, NULL);

        rs_sim_pool_fini(&s->pool, w->now);
        free(s); /* its names are the result's */
    }
    rs_map_fini(&w->served);
    for (size_t i = 0; i < rs_map_slots(&w->ingresses); i++)
        free(rs_map_at(&w->ingresses, i, NULL));
    rs_map_fini(&w->ingresses);
    rs_agent_free(w->agent);
    rs_controller_free(w->controller);
}

void rs_sim_result_fini(struct rs_sim_result *r)
{
    for (size_t i = 0; i < r->n_apps; i++) {
        free((char *)(uintptr_t)r->apps[i].name);
        free(r->apps[i].latencies_s);
    }
    free(r->apps);
    for (size_t i = 0; i < r->n_deployments; i++) {
        free((char *)(uintptr_t)r->deployments[i].app);
        free((char *)(uintptr_t)r->deployments[i].name);
    }
    free(r->deployments);
    for (size_t i = 0; i < r->n_notes; i++)
        free(r->notes[i]);
    free(r->notes);
    *r = (struct rs_sim_result){0};
}

/* --- what the trace says of the configuration ---------------------------------------------------- */

static const struct rs_config_deployment *python_of(const struct rs_config_app *app)
{
    for (size_t i = 0; i < app->deployment_count; i++)
        if (app->deployments[i].kind == RS_KIND_PYTHON)
            return &app->deployments[i];
    return NULL;
}

/* The first deployment that requests of the application name; else the file says, or has it first. */
static int find_ingress(struct rs_sim_world *w, const struct rs_config_app *app,
                        struct rs_error *err)
{
    const struct rs_sim_trace *t = w->conf->trace;
    const struct rs_config_deployment *first = python_of(app);
    const char *name = app->ingress;

    if (app->graph)
        return rs_error_set(err, RS_INVALID,
                            "application '%s' has a graph in the file: that is not simulated",
                            app->name);
    if (app->import_path && !first)
        return rs_error_set(err, RS_INVALID,
                            "application '%s': the file names none of its deployments, and modules "
                            "are not imported for a simulation: name them under 'deployments'",
                            app->name);
    for (size_t i = 0; i < t->n && !name; i++)
        if (strcmp(t->arrivals[i].app, app->name) == 0)
            name = t->works[t->arrivals[i].work].deployment;
    if (!name && first)
        name = first->name;
    if (!name || !rs_config_app_find(app, name))
        return rs_error_set(err, RS_INVALID,
                            "application '%s' has no deployment '%s' in the file: name it there, "
                            "since modules are not imported for a simulation",
                            app->name, name ? name : "");
    rs_map_put(&w->ingresses, app->name, rs_strdup(name));
    return 0;
}

/* The first work of each is that of the ingress. */
static int check_works(struct rs_sim_world *w, struct rs_sim_trace *t, struct rs_error *err)
{
    for (size_t i = 0; i < t->n; i++) {
        struct rs_sim_arrival *a = &t->arrivals[i];
        const char *ingress = rs_map_get(&w->ingresses, a->app);
        const struct rs_config_app *app = rs_config_find_app(w->conf->config, a->app);

        for (unsigned k = 0; k < a->works; k++) {
            struct rs_sim_work *x = &t->works[a->work + k];

            if (x->deployment && !rs_config_app_find(app, x->deployment))
                return rs_error_set(err, RS_INVALID,
                                    "%s:%u: expected a deployment of application '%s' that the "
                                    "file names, got '%.80s'",
                                    w->conf->file, a->line, app->name, x->deployment);
            if (x->deployment && strcmp(x->deployment, ingress) == 0 && k > 0) {
                struct rs_sim_work own = *x;

                *x = t->works[a->work];
                t->works[a->work] = own;
            }
        }
        if (t->works[a->work].deployment && strcmp(t->works[a->work].deployment, ingress) != 0)
            return rs_error_set(err, RS_INVALID,
                                "%s:%u: expected seconds for '%s', which takes the requests of "
                                "application '%s'",
                                w->conf->file, a->line, ingress, app->name);
    }
    return 0;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Who was refused in the log would have taken as long as others do. */
static int guess_works(const struct rs_config_app *app, struct rs_sim_trace *t,
                       struct rs_error *err)
{
    double *known = rs_alloc((t->n + 1) * sizeof(*known)), median;
    size_t n = 0, unknown = 0;

    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->arrivals[i].app, app->name) == 0) {
            unknown += t->works[t->arrivals[i].work].service_s < 0;
            if (t->works[t->arrivals[i].work].service_s >= 0)
                known[n++] = t->works[t->arrivals[i].work].service_s;
        }
    if (n > 0)
        qsort(known, n, sizeof(*known), by_size);
    median = n > 0 ? known[n / 2] : -1;
    free(known);
    if (unknown > 0 && n == 0)
        return rs_error_set(err, RS_INVALID,
                            "no request of application '%s' was answered in the log: it is not "
                            "known how long the work takes",
                            app->name);
    for (size_t i = 0; unknown > 0 && i < t->n; i++)
        if (strcmp(t->arrivals[i].app, app->name) == 0 &&
            t->works[t->arrivals[i].work].service_s < 0)
            t->works[t->arrivals[i].work].service_s = median;
    return 0;
}

static bool is_below(const char *path, const char *prefix)
{
    size_t n = strlen(prefix);

    if (strcmp(prefix, "/") == 0)
        return true;
    return strncmp(path, prefix, n) == 0 && (path[n] == '\0' || path[n] == '/' || path[n] == '?');
}

/* By its name, or by the longest route prefix that its path begins with. NULL: none. */
static const struct rs_config_app *app_of(const struct rs_config *c, const struct rs_sim_arrival *a)
{
    const struct rs_config_app *best = NULL;

    if (a->app)
        return rs_config_find_app(c, a->app);
    if (!a->path && c->app_count == 1)
        return &c->apps[0];
    for (size_t i = 0; i < c->app_count; i++) {
        const struct rs_config_app *app = &c->apps[i];

        if (app->route_prefix && is_below(a->path ? a->path : "/", app->route_prefix) &&
            (!best || strlen(app->route_prefix) > strlen(best->route_prefix)))
            best = app;
    }
    return best;
}

static int match(struct rs_sim_world *w, struct rs_error *err)
{
    struct rs_config *c = w->conf->config;
    struct rs_sim_trace *t = (struct rs_sim_trace *)(uintptr_t)w->conf->trace;
    struct rs_sim_result *r = w->result;

    for (size_t i = 0; i < t->n; i++) {
        const struct rs_config_app *app = app_of(c, &t->arrivals[i]);

        if (!app)
            return rs_error_set(
                err, RS_INVALID, "%s:%u: expected an application of the file, got %s '%.80s'",
                w->conf->file, t->arrivals[i].line, t->arrivals[i].app ? "'app'" : "'path'",
                t->arrivals[i].app    ? t->arrivals[i].app
                : t->arrivals[i].path ? t->arrivals[i].path
                                      : "/");
        t->arrivals[i].app = app->name;
    }
    r->apps = rs_alloc((c->app_count + 1) * sizeof(*r->apps));
    for (size_t i = 0; i < c->app_count; i++) {
        r->apps[r->n_apps++].name = rs_strdup(c->apps[i].name);
        if (find_ingress(w, &c->apps[i], err) < 0 || guess_works(&c->apps[i], t, err) < 0)
            return -1;
    }
    return check_works(w, t, err);
}

int rs_simulate(const struct rs_sim_conf *conf, struct rs_sim_result *ret, struct rs_error *err)
{
    struct rs_sim_world w = {.conf = conf,
                             .result = ret,
                             .now = RS_SEC,
                             .random = 42,
                             .last_pid = 100,
                             .node_at = INT64_MAX,
                             .head_at = INT64_MAX};
    int r;

    *ret = (struct rs_sim_result){0};
    r = match(&w, err);
    if (r < 0)
        rs_config_free(conf->config);
    else
        r = join(&w, err);
    if (r == 0)
        r = come_up(&w, err);
    if (r == 0)
        run(&w);
    world_fini(&w);
    if (r < 0)
        rs_sim_result_fini(ret);
    return r;
}
