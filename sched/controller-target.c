/* What each node is told: everything that should run and be routed there. */
#include "sched/controller-internal.h"

#include "core/base/alloc.h"

#include <stdlib.h>
#include <string.h>

/* Replicas of a deployment that take requests on a node, by its last report. */
static unsigned running_on(const struct rs_ct_node *n, const struct rs_ct_deployment *d)
{
    unsigned count = 0;

    for (size_t i = 0; n->report && i < n->report->n_replicas; i++) {
        const struct rs_report_replica *r = &n->report->replicas[i];

        count += (r->state == RS_REPLICA_RUNNING || r->state == RS_REPLICA_UPDATING) &&
                 strcmp(r->app, d->app->name) == 0 && strcmp(r->deployment, d->name) == 0;
    }
    return count;
}

static void add_remotes(struct rs_target_deployment *t, const struct rs_controller *c,
                        const struct rs_ct_node *self, const struct rs_ct_deployment *d)
{
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);
        unsigned running = n && n != self && n->address ? running_on(n, d) : 0;

        if (running > 0)
            rs_target_add_remote(t, n->id, n->address, running);
    }
}

/* Those of the wanted version and of the old one. */
static void add_places(struct rs_target_deployment *t, const struct rs_controller *c,
                       const struct rs_ct_node *n, const struct rs_ct_deployment *d)
{
    for (size_t i = 0; i < d->n_units; i++) {
        const struct rs_ct_unit *u = d->units[i];

        for (size_t k = 0; k < u->n && u->state != RS_UNIT_LEAVING; k++) {
            struct rs_target_place *p;

            if (rs_ct_unit_node(c, u, k) != n)
                continue;
            p = rs_target_add_place(t, u->members[k].id);
            p->version = rs_strdup(u->version);
            p->rank = u->members[k].rank;
            p->end = u->state == RS_UNIT_BROKEN;
            p->group = rs_strdup(u->group);
            p->gang = json_copy(u->gang);
            if (json_object_size(p->gang) > 0)
                json_object_set_new(p->gang, "rank", json_integer((json_int_t)k));
            t->ranks = rs_realloc(t->ranks, (t->replicas + 1) * sizeof(*t->ranks));
            if (!p->end)
                t->ranks[t->replicas++] = p->rank;
        }
    }
}

static void add_deployment(struct rs_target_app *app, const struct rs_controller *c,
                           const struct rs_ct_node *n, const struct rs_ct_deployment *d)
{
    struct rs_target_deployment *t = rs_target_add_deployment(app, d->name);

    t->version = rs_strdup(d->version);
    t->config = json_incref(d->core ? d->raw : d->conf->json);
    t->core = json_incref(d->core);
    t->world_size = d->wanted;
    t->start_limit = rs_ct_start_limit(d);
    t->ingress = d->ingress;
    t->failed = d->failed;
    t->ranks = rs_alloc((d->n_slots + 1) * sizeof(*t->ranks));
    for (size_t s = 0; s < d->n_slots && !rs_deployment_conf_grouped(d->conf); s++)
        if (d->slots[s].node == n)
            t->ranks[t->replicas++] = d->slots[s].rank;
    add_places(t, c, n, d);
    add_remotes(t, c, n, d);
}

static void add_app(struct rs_target *t, const struct rs_ct_node *n, const struct rs_ct_app *app)
{
    struct rs_target_app *ta = rs_target_add_app(t, app->name);

    ta->version = rs_strdup(app->version);
    ta->route_prefix = rs_strdup(app->route_prefix);
    ta->docs_path = rs_strdup(app->docs_path);
    ta->ingress = rs_strdup(app->internal ? "-" : app->graph->nodes[app->graph->ingress].name);
    ta->zygote = rs_strdup(app->zygote);
    ta->import_path = rs_strdup(app->import_path);
    ta->app_dir = rs_strdup(app->app_dir);
    ta->python = rs_strdup(app->python);
    ta->args = json_incref(app->args);
    ta->runtime_env = json_incref(app->runtime_env);
    ta->policy = json_incref(app->ingress_policy);
    ta->graph = json_incref(app->declared);
    ta->spawn = app->spawn;
    ta->start_reason = rs_strdup(app->start_reason);
    for (size_t i = 0; app->internal && i < rs_map_slots(&app->deployments); i++) {
        const struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        if (d && !d->gone)
            add_deployment(ta, app->controller, n, d);
    }
    for (size_t i = 0; !app->internal && i < app->graph->count; i++) {
        const struct rs_ct_deployment *d = rs_map_get(&app->deployments, app->graph->nodes[i].name);

        if (d && !d->gone)
            add_deployment(ta, app->controller, n, d);
    }
}

static bool takes_http(const struct rs_controller *c, const struct rs_ct_node *n)
{
    return c->started &&
           (c->started->proxy_location == RS_PROXY_EVERY_NODE ||
            (c->started->proxy_location == RS_PROXY_HEAD_ONLY && strcmp(n->id, c->node_id) == 0));
}

static void set_http(struct rs_target_http *http, const struct rs_controller *c,
                     const struct rs_ct_node *n)
{
    const struct rs_http_options *o = c->started ? &c->started->http : NULL;

    http->host = rs_strdup(o && o->host ? o->host : "127.0.0.1");
    http->port = o && takes_http(c, n) ? o->port : 0;
    http->root_path = rs_strdup(o && o->root_path ? o->root_path : "");
    http->request_timeout_s = o && o->request_timeout > 0 ? (double)o->request_timeout / 1e9 : 0;
    http->keep_alive_timeout_s = o ? (double)o->keep_alive_timeout / 1e9 : 90;
    http->access_log = rs_strdup(o ? o->access_log : NULL);
    http->access_log_json = o && o->access_log_format == RS_ENCODING_JSON;
    http->front = o ? rs_http_front_json(o) : json_object();
}

/* A node that joins may run what an earlier head told it to. It is told nothing before it said what
 * that is, and nothing while an application of which it has replicas is not built here yet: a TARGET
 * without it would end them. */
static bool too_early(const struct rs_controller *c, const struct rs_ct_node *n)
{
    if (n->sent)
        return false;
    for (size_t i = 0; n->report && i < n->report->n_replicas; i++) {
        const struct rs_ct_app *app = rs_map_get(&c->apps, n->report->replicas[i].app);

        if (app && !app->live && (app->build == RS_BUILD_WANTED || app->build == RS_BUILD_RUNNING))
            return true;
    }
    return !n->report;
}

static void send_target(struct rs_controller *c, struct rs_ct_node *n, int64_t now)
{
    rs_auto(rs_target_freep) struct rs_target *t = rs_target_new();
    rs_auto(rs_json_decrefp) json_t *j = NULL;
    uint64_t by_clock = (uint64_t)(rs_ct_wall(c, now) * 1000);
    char *text;

    t->populated = c->populated;
    set_http(&t->http, c, n);
    for (size_t i = 0; i < rs_ct_all_slots(c); i++) {
        const struct rs_ct_app *app = rs_ct_all_at(c, i);

        if (app && app->live && (!app->deleting || app->held))
            add_app(t, n, app);
    }
    j = rs_target_to_json(t);
    text = rs_json_dump(j);
    if (n->sent && strcmp(n->sent, text) == 0) {
        free(text);
        return;
    }
    rs_ct_set(&n->sent, text);
    /* By the clock, so that a head that starts anew goes on above what it told before. */
    c->revision = by_clock > c->revision ? by_clock : c->revision + 1;
    n->sent_revision = c->revision;
    json_object_set_new(j, "revision", json_integer((json_int_t)c->revision));
    c->ops.target(n->id, j, c->arg);
}

void rs_ct_send_targets(struct rs_controller *c, int64_t now)
{
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (n && !too_early(c, n))
            send_target(c, n, now);
    }
}
