#include "sched/controller-why.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "sched/controller-roll.h"
#include "sched/health.h"
#include "sched/why-text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { REPLICAS_MAX = 10, TAIL_LINES = 6, RECENT_S = 600, CHOSEN_TOLD = 3 };

/* --- pieces -------------------------------------------------------------------------------------- */

json_t *rs_ct_reason(json_t *list, const char *what, const char *cause, const char *weight)
{
    json_t *r = json_pack("{s:s, s:s, s:s}", "what", what, "cause", cause, "weight", weight);

    json_array_append_new(list, r);
    return r;
}

json_t *rs_ct_number(double v)
{
    if (v == floor(v) && fabs(v) < 1e15)
        return json_integer((json_int_t)v);
    return json_real(v);
}

json_t *rs_ct_tail(const char *text, unsigned lines)
{
    const char *at = text + strlen(text);

    while (at > text && (at[-1] == '\n' || at[-1] == ' '))
        at--;
    const char *end = at;

    for (unsigned n = 0; at > text; at--)
        if (at[-1] == '\n' && ++n == lines)
            break;
    json_t *j = json_stringn(at, (size_t)(end - at));

    return j ? j : json_string("(text that is not UTF-8)");
}

static double since(int64_t now, int64_t at)
{
    return at && now > at ? (double)(now - at) / 1e9 : 0;
}

static const char *node_name(const struct rs_controller *c, const char *id)
{
    const struct rs_ct_node *n = id ? rs_map_get(&c->nodes, id) : NULL;

    return n ? n->name : id;
}

/* Of any version. */
static unsigned serving(const struct rs_ct_seen *s)
{
    return s->running + s->updating + s->old_live;
}

/* Calls `fn` for each replica of the deployment that the nodes report. */
static void each_replica(const struct rs_ct_deployment *d, bool dead,
                         void (*fn)(const struct rs_ct_node *n, const struct rs_report_replica *r,
                                    void *arg),
                         void *arg)
{
    const struct rs_controller *c = d->app->controller;

    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);
        const struct rs_report *r = n ? n->report : NULL;
        size_t count = r ? (dead ? r->n_dead : r->n_replicas) : 0;

        for (size_t k = 0; k < count; k++) {
            const struct rs_report_replica *x = dead ? &r->dead[k] : &r->replicas[k];

            if (strcmp(x->deployment, d->name) == 0 && strcmp(x->app, d->app->name) == 0)
                fn(n, x, arg);
        }
    }
}

/* --- applications -------------------------------------------------------------------------------- */

/* What the making of the environment that it is built in is at; NULL. */
static const char *setting_up(const struct rs_ct_app *app)
{
    const struct rs_ct_node *n =
        app->builder ? rs_map_get(&app->controller->nodes, app->builder) : NULL;

    for (size_t i = 0; n && n->report && app->build_version && i < n->report->n_zygotes; i++) {
        const struct rs_report_zygote *z = &n->report->zygotes[i];

        if (z->message && strcmp(z->app, app->name) == 0 &&
            strcmp(z->version, app->build_version) == 0)
            return z->message;
    }
    return NULL;
}

static void why_building(const struct rs_ct_app *app, json_t *list, int64_t now)
{
    const char *env = setting_up(app);
    json_t *r;

    if (app->build == RS_BUILD_WANTED) {
        r = rs_ct_reason(list, "build", "build_waits_for_node", "bad");
    } else {
        r = rs_ct_reason(list, "build", env ? "environment" : "importing", "waits");
        json_object_set_new(r, "node", json_string(node_name(app->controller, app->builder)));
    }
    if (env)
        json_object_set_new(r, "message", rs_ct_tail(env, 2));
    if (app->conf && app->conf->import_path)
        json_object_set_new(r, "import_path", json_string(app->conf->import_path));
    json_object_set_new(r, "since_s", json_real(since(now, app->build_at)));
    json_object_set_new(r, "live", json_boolean(app->live));
}

static void why_failed(const struct rs_ct_app *app, json_t *list)
{
    bool env = strncmp(app->failure, "Runtime env setup", 17) == 0;
    json_t *r = rs_ct_reason(list, "build", env ? "environment_failed" : "build_failed", "bad");

    json_object_set_new(r, "error", rs_ct_tail(app->failure, TAIL_LINES));
    json_object_set_new(r, "live", json_boolean(app->live));
}

static void why_deleting(const struct rs_ct_app *app, json_t *list)
{
    json_t *r = rs_ct_reason(list, "end", "deleting", "waits");
    unsigned left = 0, in_flight = 0;

    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++) {
        const struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);
        struct rs_ct_seen s = {0};

        if (!d)
            continue;
        s = rs_ct_look(app->controller, d);
        left += s.running + s.updating + s.starting + s.stopping + s.old_live;
        in_flight += s.in_flight;
    }
    json_object_set_new(r, "replicas", json_integer(left));
    json_object_set_new(r, "in_flight", json_integer(in_flight));
}

static void why_app(const struct rs_ct_app *app, json_t *list, int64_t now)
{
    if (app->deleting)
        why_deleting(app, list);
    else if (app->build == RS_BUILD_WANTED || app->build == RS_BUILD_RUNNING)
        why_building(app, list, now);
    else if (app->failure)
        why_failed(app, list);
    rs_ct_why_app_refused(app, list, now);
}

/* --- deployments: starting ----------------------------------------------------------------------- */

struct starting {
    const struct rs_ct_deployment *d;
    json_t *list;
    double wall, longest;
    unsigned pending, count;
};

static void note_starting(const struct rs_ct_node *n, const struct rs_report_replica *x, void *arg)
{
    struct starting *s = arg;
    double age = x->start_time_s > 0 ? s->wall - x->start_time_s : 0;

    if (x->state != RS_REPLICA_STARTING && x->state != RS_REPLICA_PENDING)
        return;
    s->pending += x->state == RS_REPLICA_PENDING;
    s->count++;
    s->longest = age > s->longest ? age : s->longest;
    if (json_array_size(s->list) >= REPLICAS_MAX)
        return;
    json_t *one =
        json_pack("{s:s, s:s, s:s, s:i, s:f}", "replica", x->replica_id, "node", n->name, "state",
                  rs_replica_state_name(x->state), "pid", x->pid, "since_s", age > 0 ? age : 0.0);

    if (x->message)
        json_object_set_new(one, "message", rs_ct_tail(x->message, 2));
    json_array_append_new(s->list, one);
}

static void why_starting(const struct rs_ct_deployment *d, const struct rs_ct_seen *seen,
                         json_t *list, int64_t now)
{
    struct starting s = {.d = d, .wall = rs_ct_wall(d->app->controller, now)};
    unsigned up = seen->running + seen->updating;
    unsigned run = rs_ct_run(d), placed = d->n_slots < run ? (unsigned)d->n_slots : run;
    json_t *r;

    if (up >= placed || d->failed)
        return;
    s.list = json_array();
    each_replica(d, false, note_starting, &s);
    if (seen->blocked && !d->blocked) {
        r = rs_ct_reason(list, "pending", "node_waits", "waits");
        json_object_set_new(r, "message", rs_ct_tail(seen->blocked, 3));
    } else if (s.count) {
        r = rs_ct_reason(list, "start", d->slow ? "starting_slowly" : "starting",
                         d->slow ? "bad" : "waits");
    } else if (seen->failures_total) {
        json_decref(s.list);
        return; /* the pause between two tries: why_failing tells */
    } else {
        r = rs_ct_reason(list, "start", "not_started_yet", "waits");
    }
    json_object_set_new(r, "missing", json_integer(placed - up));
    json_object_set_new(r, "wanted", json_integer(run));
    json_object_set_new(r, "longest_s", json_real(s.longest));
    json_object_set_new(r, "replicas", s.list);
}

static void why_failing(const struct rs_ct_deployment *d, const struct rs_ct_seen *s, json_t *list)
{
    unsigned limit = rs_ct_start_limit(d), up = s->running + s->updating;
    json_t *r;

    if (d->failed) {
        r = rs_ct_reason(list, "start", "start_given_up", "bad");
    } else if (s->failures_total && up < rs_ct_run(d) && s->last_error) {
        r = rs_ct_reason(list, "start", "start_fails", "bad");
        json_object_set_new(r, "ever_ran", json_boolean(s->ever_ran));
    } else {
        return;
    }
    json_object_set_new(r, "failures",
                        json_integer(s->ever_ran ? s->failures_total : s->start_failures));
    json_object_set_new(r, "limit", json_integer(limit));
    json_object_set_new(r, "error",
                        rs_ct_tail(s->last_error ? s->last_error : d->message, TAIL_LINES));
}

/* --- deployments: health ------------------------------------------------------------------------- */

struct dead {
    json_t *list;
    unsigned count;
};

static void note_dead(const struct rs_ct_node *n, const struct rs_report_replica *x, void *arg)
{
    struct dead *s = arg;

    if (!x->message || x->ready_time_s <= 0)
        return; /* it was asked to go, or never ran */
    s->count++;
    if (json_array_size(s->list) >= REPLICAS_MAX)
        json_array_remove(s->list, 0);
    json_array_append_new(s->list, json_pack("{s:s, s:s, s:o}", "replica", x->replica_id, "node",
                                             n->name, "message", rs_ct_tail(x->message, 3)));
}

static void why_ill(const struct rs_ct_deployment *d, const struct rs_ct_seen *s, json_t *list)
{
    bool ill = d->status.trigger == RS_TRIGGER_HEALTH_CHECK_FAILED &&
               d->status.status != RS_DEPLOYMENT_HEALTHY;
    struct dead dead = {0};
    json_t *r;

    if (!ill)
        return;
    dead.list = json_array();
    each_replica(d, true, note_dead, &dead);
    if (s->deaths || dead.count) {
        r = rs_ct_reason(list, "health", "replica_died", "bad");
        json_object_set_new(r, "deaths", json_integer(s->deaths));
        if (s->last_error)
            json_object_set_new(r, "last", rs_ct_tail(s->last_error, 3));
    } else { /* with its node, and what that knew of it */
        r = rs_ct_reason(list, "health", "node_left", "bad");
        json_object_set_new(r, "message", rs_ct_tail(d->message, 3));
    }
    json_object_set_new(r, "up", json_integer(serving(s)));
    json_object_set_new(r, "wanted", json_integer(d->wanted));
    json_object_set_new(r, "dead", dead.list);
}

/* Those that live and are not well, or that are to be replaced for another reason. */
static void note_ill(const struct rs_ct_node *n, const struct rs_report_replica *x, void *arg)
{
    json_t *list = arg, *r;
    int condition = rs_health_condition_parse(rs_json_str(x->health, "condition", "well"));

    if (condition <= RS_HEALTH_WELL || x->state == RS_REPLICA_STOPPED)
        return;
    r = rs_ct_reason(list, "health",
                     rs_health_is_illness((enum rs_health_condition)condition) ? "replica_ill"
                                                                               : "replica_worn",
                     rs_health_is_illness((enum rs_health_condition)condition) ? "bad" : "waits");
    json_object_set_new(r, "replica", json_string(x->replica_id));
    json_object_set_new(r, "node", json_string(n->name));
    json_object_set_new(r, "pid", json_integer(x->pid));
    json_object_set_new(r, "state", json_string(rs_replica_state_name(x->state)));
    json_object_set_new(r, "health", json_deep_copy(x->health));
}

/* Nodes with replicas of it of which nothing was heard lately. */
static void why_silent(const struct rs_ct_deployment *d, json_t *list, int64_t now)
{
    const struct rs_controller *c = d->app->controller;

    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);
        rs_auto(rs_json_decrefp) json_t *health = n ? rs_ct_node_health(c, n, now) : NULL;
        unsigned here = 0;
        json_t *r;

        for (size_t s = 0; n && s < d->n_slots; s++)
            here += d->slots[s].node == n;
        if (!json_is_object(health) || here == 0)
            continue;
        r = rs_ct_reason(list, "health", "node_silent", "bad");
        json_object_set_new(r, "node", json_string(n->name));
        json_object_set_new(r, "replicas", json_integer(here));
        json_object_set_new(r, "silent_s", json_real(rs_json_num(health, "value", 0)));
        json_object_set_new(r, "limit_s", json_real(rs_json_num(health, "limit", 0)));
    }
}

/* --- deployments: the rest ----------------------------------------------------------------------- */

static void why_changing(const struct rs_ct_deployment *d, const struct rs_ct_seen *s, json_t *list)
{
    json_t *r;

    if (s->updating) {
        r = rs_ct_reason(list, "rollout", "reconfiguring", "waits");
        json_object_set_new(r, "replicas", json_integer(s->updating));
    }
    if (s->stopping) {
        r = rs_ct_reason(list, "end", "draining", "waits");
        json_object_set_new(r, "replicas", json_integer(s->stopping));
        json_object_set_new(r, "grace_s",
                            rs_ct_number((double)d->conf->graceful_shutdown_timeout / 1e9));
    }
}

static void why_router(const struct rs_ct_seen *s, json_t *list)
{
    json_t *r;

    if (!s->router)
        return;
    r = rs_ct_reason(list, "requests", "router_fails", "bad");
    json_object_set_new(r, "error", rs_ct_tail(s->router, 3));
    json_object_set_new(r, "fallbacks", json_integer((json_int_t)s->router_fallbacks));
}

/* The newest first; after a few of a deployment the others are only counted. */
static void why_chosen(const struct rs_ct_deployment *d, const char *replica, json_t *list,
                       double wall)
{
    json_t *r = NULL;
    unsigned told = 0, others = 0;

    for (size_t i = json_array_size(d->chosen); i-- > 0;) {
        json_t *one = json_array_get(d->chosen, i);
        bool recent = rs_json_num(one, "at_s", 0) > wall - RECENT_S;

        if (replica ? strcmp(rs_json_str(one, "replica", ""), replica) != 0 : !recent)
            continue;
        if (told++ >= CHOSEN_TOLD) {
            json_object_set_new(r, "others", json_integer(++others));
            continue;
        }
        r = rs_ct_reason(list, "end", "chosen", "note");
        json_object_update(r, one);
        json_object_set_new(r, "cause", json_string("chosen"));
        json_object_set_new(r, "ago_s", json_real(wall - rs_json_num(one, "at_s", wall)));
    }
}

static void why_well(const struct rs_ct_deployment *d, const struct rs_ct_seen *s, json_t *list)
{
    json_t *r, *one;
    size_t i;

    json_array_foreach (list, i, one)
        if (strcmp(rs_json_str(one, "weight", ""), "note") != 0)
            return;
    r = json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:i}", "what", "status", "cause", "well",
                  "weight", "note", "running", (int)serving(s), "wanted", (int)d->wanted, "queued",
                  (int)s->queued, "in_flight", (int)s->in_flight);
    json_array_insert_new(list, 0, r);
}

static void why_deployment(const struct rs_ct_deployment *d, json_t *list, int64_t now)
{
    struct rs_ct_seen s = rs_ct_look(d->app->controller, d);

    if (d->gone) {
        json_t *r = rs_ct_reason(list, "end", "deleting", "waits");

        json_object_set_new(
            r, "replicas",
            json_integer(s.running + s.updating + s.starting + s.stopping + s.old_live));
        json_object_set_new(r, "in_flight", json_integer(s.in_flight));
        return;
    }
    rs_ct_why_roll(d, s.last_error, list, now);
    if (d->roll.phase != RS_ROLLOUT_STOPPED)
        why_failing(d, &s, list);
    why_ill(d, &s, list);
    why_silent(d, list, now);
    each_replica(d, false, note_ill, list);
    rs_ct_why_place(d, list);
    why_starting(d, &s, list, now);
    why_changing(d, &s, list);
    rs_ct_why_refused(d, list, now);
    why_router(&s, list);
    rs_ct_why_scale(d, list, now);
    why_chosen(d, NULL, list, rs_ct_wall(d->app->controller, now));
    why_well(d, &s, list);
}

/* --- replicas ------------------------------------------------------------------------------------ */

struct one {
    const char *id;
    json_t *list;
    double wall;
    bool found;
};

static void note_one(const struct rs_ct_node *n, const struct rs_report_replica *x, void *arg)
{
    struct one *o = arg;
    json_t *r;
    bool ended = x->state == RS_REPLICA_STOPPED;

    if (strcmp(x->replica_id, o->id) != 0 || o->found)
        return;
    o->found = true;
    r = rs_ct_reason(o->list, ended ? "end" : "status", ended ? "replica_ended" : "replica_state",
                     "note");
    json_object_set_new(r, "replica", json_string(x->replica_id));
    json_object_set_new(r, "node", json_string(n->name));
    json_object_set_new(r, "state", json_string(rs_replica_state_name(x->state)));
    json_object_set_new(r, "pid", json_integer(x->pid));
    json_object_set_new(r, "in_flight", json_integer(x->in_flight));
    json_object_set_new(r, "done", json_integer((json_int_t)x->done));
    json_object_set_new(r, "errors", json_integer((json_int_t)x->errors));
    if (x->start_time_s > 0 && !ended)
        json_object_set_new(r, "since_s", json_real(o->wall - x->start_time_s));
    json_object_set_new(r, "ran", json_boolean(x->ready_time_s > 0));
    if (x->message)
        json_object_set_new(r, "message", rs_ct_tail(x->message, TAIL_LINES));
    if (x->log_file)
        json_object_set_new(r, "log_file", json_string(x->log_file));
    if (!ended)
        note_ill(n, x, o->list);
}

static int why_replica(const struct rs_ct_deployment *d, const char *id, json_t *list, int64_t now,
                       struct rs_error *err)
{
    struct one o = {.id = id, .list = list, .wall = rs_ct_wall(d->app->controller, now)};

    each_replica(d, false, note_one, &o);
    each_replica(d, true, note_one, &o);
    why_chosen(d, id, list, o.wall);
    if (json_array_size(list) > 0)
        return 0;
    return rs_error_set(err, RS_NOT_FOUND,
                        "no replica '%.40s' of '%.60s#%.60s' runs, and none of that name is among "
                        "the last that ended (rserve status --events shows what happened)",
                        id, d->app->name, d->name);
}

/* --- the answer ---------------------------------------------------------------------------------- */

static json_t *told(json_t *list)
{
    json_t *r;
    size_t i;

    json_array_foreach (list, i, r)
        rs_why_text(r);
    return list;
}

/* Takes `reasons`. */
static json_t *deployment_json(const struct rs_ct_deployment *d, json_t *reasons)
{
    struct rs_ct_seen s = rs_ct_look(d->app->controller, d);

    return json_pack("{s:s, s:i, s:i, s:o}", "status", rs_deployment_status_name(d->status.status),
                     "running", (int)serving(&s), "wanted", (int)d->wanted, "reasons",
                     told(reasons));
}

static json_t *app_json(const struct rs_ct_app *app, const char *only, int64_t now)
{
    json_t *deployments = json_object(), *reasons = json_array();

    why_app(app, reasons, now);
    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++) {
        const struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);
        json_t *list;

        if (!d || (only && strcmp(only, d->name) != 0))
            continue;
        list = json_array();
        if (!app->deleting)
            why_deployment(d, list, now);
        json_object_set_new(deployments, d->name, deployment_json(d, list));
    }
    return json_pack("{s:s, s:o, s:o}", "status", rs_app_status_name(app->status), "reasons",
                     told(reasons), "deployments", deployments);
}

static const struct rs_ct_deployment *find(const struct rs_ct_app *app, const char *name,
                                           struct rs_error *err)
{
    const struct rs_ct_deployment *d = rs_map_get(&app->deployments, name);

    if (!d)
        rs_error_set(err, RS_NOT_FOUND, "application '%.100s' has no deployment '%.100s'",
                     app->name, name);
    return d;
}

int rs_controller_why(const struct rs_controller *c, const struct rs_controller_subject *of,
                      int64_t now, json_t **ret, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *apps = json_object();
    const struct rs_ct_app *app = of->app ? rs_map_get(&c->apps, of->app) : NULL;
    const struct rs_ct_deployment *d = NULL;

    if (of->app && !app)
        return rs_error_set(err, RS_NOT_FOUND, "there is no application '%.100s'", of->app);
    if (of->deployment && (!app || !(d = find(app, of->deployment, err))))
        return app ? -1 : rs_error_set(err, RS_INVALID, "a deployment without its application");
    if (of->replica && d) {
        rs_auto(rs_json_decrefp) json_t *list = json_array();

        if (why_replica(d, of->replica, list, now, err) < 0)
            return -1;
        json_object_set_new(apps, app->name,
                            json_pack("{s:s, s:[], s:{s:o}}", "status",
                                      rs_app_status_name(app->status), "reasons", "deployments",
                                      d->name, deployment_json(d, rs_steal(list))));
    } else if (app) {
        json_object_set_new(apps, app->name, app_json(app, of->deployment, now));
    }
    for (size_t i = 0; !of->app && i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *one = rs_map_at(&c->apps, i, NULL);

        if (one)
            json_object_set_new(apps, one->name, app_json(one, NULL, now));
    }
    *ret = json_pack("{s:f, s:O}", "at_s", rs_ct_wall(c, now), "applications", apps);
    return 0;
}
