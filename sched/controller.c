#include "sched/controller-plan.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "sched/controller-core.h"
#include "sched/controller-roll.h"

#include <stdlib.h>
#include <string.h>

#define SLOW_START (30 * RS_SEC)
#define ROUND_AT_ONCE 32             /* nodes: up to so many, each report is followed by a round */
#define ROUND_PER_NODE (100 * RS_US) /* between two rounds, where there are more */
#define ROLL_STEPS 4 /* at a time: whether there is room is known when it was looked for */

void rs_ct_set(char **text, char *value)
{
    free(*text);
    *text = value;
}

void rs_controller_set_wall(struct rs_controller *c, double wall_offset_s)
{
    c->wall_offset_s = wall_offset_s;
}

double rs_ct_wall(const struct rs_controller *c, int64_t now)
{
    return (double)now / 1e9 + c->wall_offset_s;
}

const char *rs_controller_event_kind_name(enum rs_controller_event_kind kind)
{
    static const char *const names[RS_EVENT_KIND_COUNT] = {
#define RS_X(name, text) [RS_EVENT_##name] = text,
        RS_CONTROLLER_EVENTS(RS_X)
#undef RS_X
    };

    return names[kind];
}

void rs_ct_emit(struct rs_controller *c, const struct rs_controller_event *e)
{
    struct rs_controller_event full = *e;

    if (!c->ops.event)
        return;
    if (!full.who)
        full.who = c->who;
    if (full.node_id && !full.node) {
        const struct rs_ct_node *n = rs_map_get(&c->nodes, full.node_id);

        full.node = n ? n->name : full.node_id;
    }
    if (!full.text)
        full.text = "";
    if (!full.status)
        full.status = "";
    c->ops.event(&full, c->arg);
}

void rs_controller_who(struct rs_controller *c, const char *who)
{
    rs_ct_set(&c->who, rs_strdup(who));
}

/* Somebody gave an order about an application; NULL: about all of them. */
static void ordered(struct rs_controller *c, const char *app, const char *what)
{
    rs_ct_emit(c,
               &(struct rs_controller_event){.kind = RS_EVENT_DEPLOY, .app = app, .status = what});
}

/* --- life --- */

int rs_controller_new(struct rs_controller **ret, const struct rs_controller_conf *conf,
                      const struct rs_controller_ops *ops, void *arg, struct rs_error *err)
{
    struct rs_controller *c;

    if (!ops->target || !ops->build)
        return rs_error_set(err, RS_INVALID, "a controller needs the ops target and build");
    c = rs_alloc(sizeof(*c));
    c->ops = *ops;
    c->arg = arg;
    c->wall_offset_s = conf->wall_offset_s;
    c->node_id = rs_strdup(conf->node_id ? conf->node_id : "head");
    c->node_ip = rs_strdup(conf->node_ip ? conf->node_ip : "127.0.0.1");
    c->log_file = rs_strdup(conf->log_file ? conf->log_file : "");
    *ret = c;
    return 0;
}

static void node_free(struct rs_ct_node *n)
{
    if (!n)
        return;
    rs_report_free(n->report);
    rs_resources_fini(&n->total);
    rs_resources_fini(&n->spare);
    json_decref(n->labels);
    free(n->id);
    free(n->name);
    free(n->version);
    free(n->address);
    free(n->sent);
    free(n);
}

void rs_controller_free(struct rs_controller *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++)
        rs_ct_app_free(rs_map_at(&c->apps, i, NULL));
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++)
        node_free(rs_map_at(&c->nodes, i, NULL));
    rs_ct_core_fini(c);
    rs_ct_lost_free(c);
    rs_ct_plans_free(c);
    rs_history_fini(&c->history);
    json_decref(c->restored);
    json_decref(c->forecasts);
    json_decref(c->kept_rolls);
    rs_map_fini(&c->apps);
    rs_map_fini(&c->nodes);
    if (c->started != c->config)
        rs_config_free(c->started);
    rs_config_free(c->config);
    free(c->who);
    free(c->node_id);
    free(c->node_ip);
    free(c->log_file);
    free(c->common);
    free(c);
}

/* --- desired state --- */

static struct rs_ct_app *app_new(struct rs_controller *c, const char *name)
{
    struct rs_ct_app *app = rs_alloc(sizeof(*app));

    app->controller = c;
    app->name = rs_strdup(name);
    app->status = RS_APP_DEPLOYING;
    app->message = rs_strdup("");
    rs_map_put(&c->apps, name, app);
    return app;
}

static void take_config(struct rs_controller *c, struct rs_config *config)
{
    rs_ct_capacity(c, c->config, config);
    if (c->config != c->started)
        rs_config_free(c->config);
    c->config = config;
    if (!c->started)
        c->started = config;
}

/* `conf` is in `own` (taken) or, without one, in c->config. */
static void want_app(struct rs_controller *c, const struct rs_config_app *conf,
                     struct rs_config *own, int64_t now)
{
    struct rs_ct_app *app = rs_map_get(&c->apps, conf->name);

    if (!app)
        app = app_new(c, conf->name);
    rs_config_free(app->own);
    app->own = own;
    app->conf = conf;
    app->noted = false;
    app->rollback_of = 0;
    rs_ct_set(&app->who, rs_strdup(c->who));
    app->deleting = false;
    app->held = false;
    app->deployed_at = rs_ct_wall(c, now);
    json_decref(app->echo);
    app->echo = rs_config_app_echo(conf);
    rs_ct_app_follow(app, now);
}

int rs_controller_apply(struct rs_controller *c, struct rs_config *config, int64_t now,
                        struct rs_error *err)
{
    if (!config)
        return rs_error_set(err, RS_INVALID, "no configuration");
    c->now = now;
    take_config(c, config);
    ordered(c, NULL, "APPLY");
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        if (app && !app->own && !rs_config_find_app(config, app->name))
            rs_ct_app_delete(app);
    }
    for (size_t i = 0; i < config->app_count; i++)
        want_app(c, &config->apps[i], NULL, now);
    rs_ct_update(c, now);
    return 0;
}

int rs_controller_roll_back(struct rs_controller *c, struct rs_config *config, const char *name,
                            int64_t revision, int64_t now, struct rs_error *err)
{
    const struct rs_config_app *conf = rs_config_find_app(config, name);
    struct rs_ct_app *rolled;

    if (!conf) {
        rs_config_free(config);
        return rs_error_set(err, RS_INVALID, "the configuration has no application '%.80s'", name);
    }
    take_config(c, config);
    ordered(c, name, "ROLLBACK");
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        if (!app || app->own || !app->conf)
            continue;
        app->conf = rs_config_find_app(config, app->name); /* the others go on as they are */
        if (!app->conf)
            rs_ct_app_delete(app);
    }
    want_app(c, conf, NULL, now);
    rolled = rs_map_get(&c->apps, name);
    rolled->rollback_of = revision;
    rs_ct_update(c, now);
    return 0;
}

/* Ray's text; NULL: the prefix is free. */
static const struct rs_ct_app *prefix_owner(const struct rs_controller *c,
                                            const struct rs_config_app *conf)
{
    for (size_t i = 0; conf->route_prefix && i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        if (app && app->conf && strcmp(app->name, conf->name) != 0 && app->conf->route_prefix &&
            strcmp(app->conf->route_prefix, conf->route_prefix) == 0)
            return app;
    }
    return NULL;
}

int rs_controller_put(struct rs_controller *c, struct rs_config *config, int64_t now,
                      struct rs_error *err)
{
    const struct rs_config_app *conf = config->apps;
    const struct rs_ct_app *owner;

    if (config->app_count != 1) {
        rs_error_set(err, RS_INVALID, "one application was expected, %zu came", config->app_count);
        rs_config_free(config);
        return -1;
    }
    owner = prefix_owner(c, conf);
    if (owner) {
        rs_error_set(err, RS_CONFLICT,
                     "Prefix %s is being used by application \"%s\". Failed to deploy application "
                     "\"%s\".",
                     conf->route_prefix, owner->name, conf->name);
        rs_ct_emit(c, &(struct rs_controller_event){.kind = RS_EVENT_DEPLOY,
                                                    .app = conf->name,
                                                    .status = "REFUSED",
                                                    .cause = "route_taken",
                                                    .text = err->msg});
        rs_ct_set(&c->who, NULL);
        rs_config_free(config);
        return -1;
    }
    c->now = now;
    ordered(c, conf->name, "PUT");
    want_app(c, conf, config, now);
    rs_ct_update(c, now);
    return 0;
}

bool rs_controller_delete(struct rs_controller *c, const char *name, int64_t now)
{
    struct rs_ct_app *app = rs_map_get(&c->apps, name);

    if (!app)
        return false;
    ordered(c, name, "DELETE");
    rs_ct_app_delete(app);
    rs_ct_update(c, now);
    return true;
}

void rs_controller_start(struct rs_controller *c, struct rs_config *config)
{
    if (c->started)
        rs_config_free(config);
    else
        c->started = config;
}

void rs_controller_delete_all(struct rs_controller *c, int64_t now)
{
    ordered(c, NULL, "DELETE");
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        if (app)
            rs_ct_app_delete(app);
    }
    rs_ct_update(c, now);
}

bool rs_controller_empty(const struct rs_controller *c)
{
    return rs_map_count(&c->apps) == 0;
}

/* --- nodes --- */

int rs_controller_node_joined(struct rs_controller *c, const struct rs_controller_node *node,
                              int64_t now, struct rs_error *err)
{
    struct rs_resources total = {0};
    struct rs_ct_node *n;

    if (!node->node_id || !*node->node_id)
        return rs_error_set(err, RS_INVALID, "JOIN without a node_id");
    if (rs_resources_from_json(&total, node->resources, err) < 0)
        return rs_error_wrap(err, "JOIN of node '%s'", node->node_id);
    n = rs_map_get(&c->nodes, node->node_id);
    if (!n) {
        n = rs_alloc(sizeof(*n));
        n->id = rs_strdup(node->node_id);
        rs_map_put(&c->nodes, n->id, n);
    }
    rs_ct_set(&n->name, rs_strdup(node->name ? node->name : node->node_id));
    rs_ct_set(&n->version, rs_strdup(node->version));
    rs_ct_set(&n->address, rs_strdup(node->address));
    rs_ct_set(&n->sent, NULL);
    n->serial = ++c->node_serial;
    rs_resources_fini(&n->total);
    n->total = total;
    json_decref(n->labels);
    n->labels = json_is_object(node->labels) ? json_deep_copy(node->labels) : json_object();
    json_object_set_new(n->labels, "ray.io/node-id", json_string(n->id));
    rs_report_free(n->report); /* what it said before it left is no longer known to be true */
    n->report = NULL;
    c->facts++;
    n->draining = false;
    rs_ct_emit(c,
               &(struct rs_controller_event){
                   .kind = RS_EVENT_NODE, .node_id = n->id, .status = "JOINED", .text = n->name});
    rs_ct_update_soon(c, now);
    return 0;
}

/* Replicas that the node ran are lost, as it seems: their deployments say so. One that rolls does not: it
 * has not failed by that, and its message tells how far it is. */
static void count_lost(struct rs_controller *c, const struct rs_ct_node *n,
                       const struct rs_controller_loss *why, int64_t now)
{
    rs_auto(rs_freep) char *how = rs_ct_loss_text(n, why);

    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);
            unsigned lost = 0;

            for (size_t r = 0; d && !d->gone && n->report && r < n->report->n_replicas; r++) {
                const struct rs_report_replica *rr = &n->report->replicas[r];

                lost += strcmp(rr->app, app->name) == 0 && strcmp(rr->deployment, d->name) == 0 &&
                        (rr->state == RS_REPLICA_RUNNING || rr->state == RS_REPLICA_UPDATING);
            }
            if (d && !n->draining && (lost || !n->report))
                rs_ct_roll_away(d, now);
            if (lost && !rs_rollout_active(&d->roll))
                rs_ct_event(d, RS_STATUS_HEALTH_FAILED,
                            rs_asprintf("Node '%s' left with %u running replica%s: %s; "
                                        "replacements are started on other nodes.",
                                        n->name, lost, lost == 1 ? "" : "s", how));
        }
    }
}

static void leave_slots(struct rs_ct_deployment *d, const struct rs_ct_node *n)
{
    size_t kept = 0;

    for (size_t s = 0; s < d->n_slots; s++)
        if (d->slots[s].node != n)
            d->slots[kept++] = d->slots[s];
    d->n_slots = kept;
}

static void forget_slots(struct rs_controller *c, const struct rs_ct_node *n)
{
    for (size_t i = 0; i < rs_ct_all_slots(c); i++) {
        const struct rs_ct_app *app = rs_ct_all_at(c, i);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            if (!d)
                continue;
            leave_slots(d, n);
            for (size_t o = 0; o < d->n_old; o++)
                leave_slots(d->old[o], n);
            d->seen_deaths = 0; /* sums over other nodes from here */
            d->seen_failures = 0;
        }
    }
}

static void rebuild_elsewhere(struct rs_controller *c, const char *node_id)
{
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        if (app && app->build == RS_BUILD_RUNNING && strcmp(app->builder, node_id) == 0) {
            app->build = RS_BUILD_WANTED;
            rs_ct_set(&app->builder, NULL);
        }
    }
}

void rs_controller_node_left(struct rs_controller *c, const char *node_id, int64_t now)
{
    rs_controller_node_lost(c, node_id, NULL, now);
}

void rs_controller_node_lost(struct rs_controller *c, const char *node_id,
                             const struct rs_controller_loss *why, int64_t now)
{
    struct rs_ct_node *n = rs_map_remove(&c->nodes, node_id);

    if (!n)
        return;
    rs_ct_replica_events(c, n, n->report, NULL, "node_left");
    count_lost(c, n, why, now);
    rs_ct_core_node_left(c, n, now);
    forget_slots(c, n);
    rebuild_elsewhere(c, node_id);
    rs_ct_plans_node_left(c, node_id);
    rs_ct_policy_node_left(c, node_id, now);
    rs_ct_lost(c, n, why, now);
    node_free(n);
    c->facts++;
    rs_ct_update_soon(c, now);
}

int rs_controller_report(struct rs_controller *c, const char *node_id, const json_t *report,
                         int64_t now, struct rs_error *err)
{
    struct rs_ct_node *n = rs_map_get(&c->nodes, node_id);
    struct rs_report *before;
    struct rs_report *r = NULL;

    if (!n)
        return rs_error_set(err, RS_NOT_FOUND, "REPORT of node '%s', which has not joined",
                            node_id);
    if (rs_report_from_json(&r, report, err) < 0)
        return rs_error_wrap(err, "node '%s'", node_id);
    rs_ct_set(&c->who, rs_asprintf("node %s", n->name));
    before = n->report;
    rs_ct_scale_report(c, before, r, n->reported_at, now);
    rs_ct_count_refused(c, before, r, now);
    rs_ct_canary_report(c, before, r);
    n->report = r;
    c->facts++;
    n->reported_at = now;
    n->draining = r->draining;
    rs_ct_replica_events(c, n, before, r, NULL);
    rs_report_free(before);
    rs_ct_update_soon(c, now);
    return 0;
}

/* --- builds --- */

static struct rs_ct_app *building(struct rs_controller *c, const json_t *answer)
{
    struct rs_ct_app *app = rs_map_get(&c->apps, rs_json_str(answer, "app", ""));

    if (!app || app->build != RS_BUILD_RUNNING ||
        strcmp(app->build_version, rs_json_str(answer, "version", "")) != 0)
        return NULL; /* an answer to a question of yesterday */
    app->build = RS_BUILD_DONE;
    rs_ct_set(&app->builder, NULL);
    return app;
}

void rs_controller_graph(struct rs_controller *c, const char *node_id, const json_t *graph,
                         int64_t now)
{
    struct rs_ct_app *app = rs_ct_plans_answer(c, graph, true, now) ? NULL : building(c, graph);

    if (!app)
        return;
    rs_ct_note_build(app, "DONE", NULL, now);
    rs_ct_app_deploy(app, graph, now);
    rs_ct_update(c, now);
}

char *rs_ct_build_error(const char *app, const json_t *failed)
{
    const char *trace = rs_json_str(failed, "traceback", "");
    const char *kind = rs_json_str(failed, "kind", "");

    if (strcmp(rs_json_str(failed, "phase", ""), "environment") == 0)
        return rs_asprintf("Runtime env setup for app '%s' failed:\n%s", app,
                           *trace ? trace : rs_json_str(failed, "error", ""));
    if (*trace)
        return rs_asprintf("Deploying app '%s' failed with exception:\n%s", app, trace);
    return rs_asprintf("Deploying app '%s' failed with exception:\n%s%s%s", app, kind,
                       *kind ? ": " : "", rs_json_str(failed, "error", "no reason given"));
}

void rs_controller_build_failed(struct rs_controller *c, const char *node_id, const json_t *failed,
                                int64_t now)
{
    struct rs_ct_app *app = rs_ct_plans_answer(c, failed, false, now) ? NULL : building(c, failed);

    if (!app)
        return;
    rs_ct_app_failed(app, rs_ct_build_error(app->name, failed));
    rs_ct_note_build(app, "FAILED", app->failure, now);
    rs_ct_update(c, now);
}

/* --- time --- */

static void forget_deleted(struct rs_controller *c)
{
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        const char *name = NULL;
        struct rs_ct_app *app = rs_map_at(&c->apps, i, &name);

        if (!app || !app->deleting || rs_map_count(&app->deployments) > 0)
            continue;
        rs_ct_emit(c, &(struct rs_controller_event){
                          .kind = RS_EVENT_APP, .app = app->name, .status = "DELETED", .text = ""});
        rs_map_remove(&c->apps, name);
        rs_ct_app_free(app);
    }
}

void rs_ct_update(struct rs_controller *c, int64_t now)
{
    if (!c->started_at)
        c->started_at = now;
    c->now = c->updated_at = now;
    c->update_at = 0;
    c->rounds++;
    rs_ct_send_builds(c);
    rs_ct_plans_update(c, now);
    rs_ct_core_update(c, now);
    rs_ct_routes_update(c);
    (void)rs_ct_scale(c, now);
    rs_ct_canaries(c, now);
    rs_ct_place(c);
    for (int i = 0; i < ROLL_STEPS && rs_ct_rolls_step(c, now); i++)
        rs_ct_place(c);
    if (rs_ct_short_of_room(c) && rs_ct_pools_yield(c))
        rs_ct_place(c);
    rs_ct_send_targets(c, now);
    rs_ct_observe(c, now);
    rs_ct_send_targets(c, now); /* what was given up is no longer to be started */
    if (rs_ct_policies_tick(c, now) && rs_ct_scale(c, now)) {
        rs_ct_place(c);
        rs_ct_send_targets(c, now);
    }
    forget_deleted(c);
    rs_ct_set(&c->who, NULL);
}

/* Thousands of replicas that start at the same time are thousands of reports, and a round goes by all of
 * them: there is one for each so many, and none of them waits where there are few. */
void rs_ct_update_soon(struct rs_controller *c, int64_t now)
{
    int64_t nodes = (int64_t)rs_map_count(&c->nodes);
    int64_t at = c->updated_at + nodes * ROUND_PER_NODE;

    c->now = now;
    if (nodes <= ROUND_AT_ONCE || !c->started_at || at <= now) {
        rs_ct_update(c, now);
        return;
    }
    c->update_at = c->update_at && c->update_at < at ? c->update_at : at;
    rs_ct_set(&c->who, NULL);
}

/* When somebody waits for more than 30 s; INT64_MAX: nobody does. */
static int64_t slow_at(const struct rs_ct_deployment *d)
{
    return d->waiting_since && !d->slow ? d->waiting_since + SLOW_START : INT64_MAX;
}

static int64_t earliest(const struct rs_controller *c,
                        int64_t (*due)(const struct rs_ct_deployment *d))
{
    int64_t at = INT64_MAX;

    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            const struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            if (d && due(d) < at)
                at = due(d);
        }
    }
    return at;
}

/* What takes a whole round when it is due; the autoscaler alone looks more often than that. */
static int64_t round_at(const struct rs_controller *c)
{
    int64_t slow = earliest(c, slow_at), core = rs_ct_core_deadline(c);
    int64_t roll = earliest(c, rs_ct_roll_deadline);
    int64_t canary = earliest(c, rs_ct_canary_deadline);
    int64_t plans = rs_ct_plans_deadline(c), first = slow < core ? slow : core;

    first = roll < first ? roll : first;
    first = canary < first ? canary : first;
    first = first < plans ? first : plans;
    return c->update_at && c->update_at < first ? c->update_at : first;
}

void rs_controller_tick(struct rs_controller *c, int64_t now)
{
    c->now = now;
    if (rs_ct_scale(c, now) || round_at(c) <= now || rs_ct_policies_tick(c, now))
        rs_ct_update(c, now);
}

int64_t rs_controller_deadline(const struct rs_controller *c)
{
    int64_t round = round_at(c), scale = earliest(c, rs_ct_scale_deadline);

    return round < scale ? round : scale;
}
