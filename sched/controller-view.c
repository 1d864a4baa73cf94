/* What people and tools are told: the details API in the shape of Ray 2.60, and the summary of
 * `rserve run`.
 *
 * Members of our own stand under the key "rserve", and only on request, since clients of Ray's API may
 * be strict about what they do not know:
 *   document    {"version", "nodes": {id: {"name", "address", "resources", "free", "labels",
 *               "revision", "draining", "health": null, or why it is suspect}},
 *               "lost_nodes": [{"name", "cause", "text", "value", "limit", ..}] the last ones}
 *   application {"start": "fork"|"spawn", "start_reason", "building": bool}
 *   deployment  {"kind", "version", "queued", "in_flight", "pending", "blocked", "start_failures",
 *               "deaths", "last_error", "notice", "autoscaling": why it scales or does not,
 *               "dropped": {"queue_full", "shed", "expired"}: requests that were refused,
 *               "router_fallbacks", "router": why its own request router is not used}
 *   replica     {"node", "version", "rank", "state": our own name, "ready_time_s", "uptime_s",
 *               "in_flight", "done", "errors", "message", "health": what is the matter with it, or how it
 *               ended, with the figures (sched/health.h); null: it is well}
 */
#include "sched/controller-roll.h"

#include "core/base/alloc.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

/* --- who and where --- */

/* "10.0.0.5:7000" -> "10.0.0.5"; a node without an address is on this machine. */
static json_t *ip_of(const struct rs_controller *c, const struct rs_ct_node *n)
{
    const char *colon = n && n->address ? strrchr(n->address, ':') : NULL;

    if (!colon)
        return json_string(c->node_ip);
    if (n->address[0] == '[' && colon[-1] == ']')
        return json_stringn(n->address + 1, (size_t)(colon - n->address) - 2);
    return json_stringn(n->address, (size_t)(colon - n->address));
}

/* What Ray says of any actor; processes of rserve have a name and a node, but no actor id. */
static json_t *actor(const struct rs_controller *c, const char *node_id, json_t *ip,
                     const char *name, const char *log_file)
{
    return json_pack("{s:s, s:o, s:s, s:s, s:s, s:s, s:s}", "node_id", node_id, "node_ip", ip,
                     "node_instance_id", "", "actor_id", "", "actor_name", name, "worker_id", "",
                     "log_file_path", log_file ? log_file : "");
}

static bool has_proxy(const struct rs_controller *c, const struct rs_ct_node *n)
{
    enum rs_proxy_location where = c->started ? c->started->proxy_location : RS_PROXY_EVERY_NODE;

    if (where == RS_PROXY_HEAD_ONLY)
        return strcmp(n->id, c->node_id) == 0;
    return where == RS_PROXY_EVERY_NODE;
}

static json_t *proxies(const struct rs_controller *c)
{
    json_t *all = json_object();

    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (!n || !has_proxy(c, n))
            continue;
        rs_auto(rs_freep) char *name = rs_asprintf("SERVE_PROXY_ACTOR-%s", n->id);
        json_t *p = actor(c, n->id, ip_of(c, n), name, NULL);

        json_object_set_new(p, "status",
                            json_string(!n->report    ? "STARTING"
                                        : n->draining ? "DRAINING"
                                                      : "HEALTHY"));
        json_object_set_new(all, n->id, p);
    }
    return all;
}

static json_t *target_groups(const struct rs_controller *c)
{
    json_t *targets = json_array();

    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (!n || !has_proxy(c, n) || !n->report || n->draining)
            continue;
        rs_auto(rs_freep) char *name = rs_asprintf("SERVE_PROXY_ACTOR-%s", n->id);

        json_array_append_new(targets, json_pack("{s:o, s:i, s:s, s:s}", "ip", ip_of(c, n), "port",
                                                 c->started ? c->started->http.port : 8000,
                                                 "instance_id", "", "name", name));
    }
    return json_pack("[{s:o, s:s, s:s, s:s, s:[]}]", "targets", targets, "route_prefix", "/",
                     "protocol", "HTTP", "app_name", "", "ingress_request_router_targets");
}

/* --- replicas --- */

static json_t *replica_extra(const struct rs_ct_node *n, const struct rs_report_replica *r,
                             double wall)
{
    json_t *j =
        json_pack("{s:s, s:s, s:i, s:s, s:f, s:i, s:I, s:I}", "node", n->name, "version",
                  r->version, "rank", (int)r->rank, "state", rs_replica_state_name(r->state),
                  "ready_time_s", r->ready_time_s, "in_flight", (int)r->in_flight, "done",
                  (json_int_t)r->done, "errors", (json_int_t)r->errors);

    json_object_set_new(j, "uptime_s",
                        r->start_time_s > 0 ? json_real(wall - r->start_time_s) : json_null());
    json_object_set_new(j, "message", text_or_null(r->message));
    json_object_set_new(j, "health",
                        json_object_size(r->health) ? json_incref(r->health) : json_null());
    return j;
}

static json_t *replica(const struct rs_controller *c, const struct rs_ct_node *n,
                       const struct rs_report_replica *r, bool extended, double wall)
{
    rs_auto(rs_freep) char *name =
        rs_asprintf("SERVE_REPLICA::%s#%s#%s", r->app, r->deployment, r->replica_id);
    json_t *j = actor(c, n->id, ip_of(c, n), name, r->log_file);

    json_object_set_new(j, "replica_id", json_string(r->replica_id));
    json_object_set_new(j, "state", json_string(rs_replica_state_ray_name(r->state)));
    json_object_set_new(j, "pid", r->pid > 0 ? json_integer(r->pid) : json_null());
    json_object_set_new(j, "start_time_s", json_real(r->start_time_s > 0 ? r->start_time_s : wall));
    if (extended)
        json_object_set_new(j, "rserve", replica_extra(n, r, wall));
    return j;
}

static json_t *replicas(const struct rs_ct_deployment *d, bool dead, bool extended, double wall)
{
    const struct rs_controller *c = d->app->controller;
    json_t *list = json_array();

    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);
        const struct rs_report *r = n ? n->report : NULL;
        size_t count = r ? (dead ? r->n_dead : r->n_replicas) : 0;

        for (size_t k = 0; k < count; k++) {
            const struct rs_report_replica *rr = dead ? &r->dead[k] : &r->replicas[k];

            if (rr->state == RS_REPLICA_STOPPED && !dead)
                continue;
            if (strcmp(rr->app, d->app->name) == 0 && strcmp(rr->deployment, d->name) == 0)
                json_array_append_new(list, replica(c, n, rr, extended, wall));
        }
    }
    return list;
}

/* --- deployments --- */

static const char *message_of(const struct rs_ct_deployment *d)
{
    if (*d->message || !d->notice)
        return d->message;
    return d->notice;
}

static json_t *router_says(const struct rs_ct_seen *s)
{
    rs_auto(rs_freep) char *text = NULL;

    if (!s->router)
        return json_null();
    text = rs_asprintf("the request router fails (%s); the built-in choice takes its place: %llu "
                       "requests so far",
                       s->router, (unsigned long long)s->router_fallbacks);
    return json_string(text);
}

static json_t *deployment_extra(const struct rs_ct_deployment *d)
{
    struct rs_ct_seen s = rs_ct_look(d->app->controller, d);
    unsigned up = s.running + s.updating;
    json_t *j = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i}", "kind",
                          rs_deployment_kind_name(d->conf->kind), "version", d->version, "queued",
                          (int)s.queued, "in_flight", (int)s.in_flight, "pending",
                          (int)(d->wanted > up + s.starting ? d->wanted - up - s.starting : 0),
                          "start_failures", (int)s.start_failures, "deaths", (int)s.deaths);

    json_object_set_new(j, "blocked", text_or_null(d->blocked ? d->blocked : s.blocked));
    json_object_set_new(j, "last_error", text_or_null(s.last_error));
    json_object_set_new(j, "notice", text_or_null(d->notice));
    json_object_set_new(j, "rollout", rs_ct_roll_json(d));
    json_object_set_new(j, "canary", rs_ct_canary_json(d, d->app->controller->now));
    json_object_set_new(j, "autoscaling", rs_ct_scale_why(d));
    json_object_set_new(j, "dropped",
                        json_pack("{s:I, s:I, s:I}", "queue_full", (json_int_t)s.dropped_full,
                                  "shed", (json_int_t)s.dropped_shed, "expired",
                                  (json_int_t)s.dropped_expired));
    json_object_set_new(j, "router_fallbacks", json_integer((json_int_t)s.router_fallbacks));
    json_object_set_new(j, "router", router_says(&s));
    return j;
}

/* {"CPU": 1}: whole amounts without a fraction. */
static json_t *required(const struct rs_resources *r)
{
    json_t *all = rs_resources_json(r);
    const char *key;
    json_t *v;

    json_object_foreach (all, key, v) {
        double amount = json_number_value(v);

        if (json_is_real(v) && amount == floor(amount) && amount < 1e15)
            json_object_set_new(all, key, json_integer((json_int_t)amount));
    }
    return all;
}

static json_t *deployment(const struct rs_ct_deployment *d, bool extended, double wall)
{
    json_t *j = json_pack("{s:s, s:s, s:s, s:s}", "name", d->name, "status",
                          rs_deployment_status_name(d->status.status), "status_trigger",
                          rs_trigger_name(d->status.trigger), "message", message_of(d));

    json_object_set_new(j, "deployment_config", rs_deployment_conf_json(d->conf));
    json_object_set_new(j, "target_num_replicas", json_integer((json_int_t)d->wanted));
    json_object_set_new(j, "required_resources", required(&d->conf->resources));
    json_object_set_new(j, "replicas", replicas(d, false, extended, wall));
    if (d->conf->autoscaling_enabled)
        json_object_set_new(j, "autoscaling_detail", rs_ct_scale_json(d));
    json_object_set_new(j, "recent_dead_replicas", replicas(d, true, extended, wall));
    if (extended)
        json_object_set_new(j, "rserve", deployment_extra(d));
    return j;
}

static json_t *application(const struct rs_ct_app *app, bool extended, double wall)
{
    json_t *deployments = json_object();
    json_t *j = json_pack(
        "{s:s, s:s?, s:s?, s:s, s:s, s:f, s:O?, s:s}", "name", app->name, "route_prefix",
        app->live ? app->route_prefix : NULL, "docs_path", app->live ? app->docs_path : NULL,
        "status", rs_app_status_name(app->status), "message", app->message, "last_deployed_time_s",
        app->deployed_at, "deployed_app_config", app->own ? NULL : app->echo, "source",
        app->own ? "imperative" : "declarative");

    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++) {
        const struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        if (d)
            json_object_set_new(deployments, d->name, deployment(d, extended, wall));
    }
    json_object_set_new(j, "deployments", deployments);
    json_object_set_new(j, "external_scaler_enabled",
                        json_boolean(app->conf && app->conf->external_scaler_enabled));
    json_object_set_new(j, "deployment_topology",
                        app->graph ? rs_graph_json(app->graph) : json_null());
    if (extended) {
        json_t *extra = json_pack("{s:s?, s:s?, s:b}", "start",
                                  !app->live || !app->import_path ? NULL
                                  : app->spawn                    ? "spawn"
                                                                  : "fork",
                                  "start_reason", app->start_reason, "building",
                                  app->build == RS_BUILD_WANTED || app->build == RS_BUILD_RUNNING);

        json_object_set_new(j, "rserve", extra);
    }
    return j;
}

/* --- the document --- */

static json_t *health(const struct rs_controller *c, int64_t now, double wall)
{
    double up = c->started_at ? (double)(now - c->started_at) / 1e9 : 0;

    return json_pack("{s:f, s:f, s:f, s:I}", "timestamp", wall, "controller_start_time", wall - up,
                     "uptime_s", up, "num_control_loops", (json_int_t)c->rounds);
}

static json_t *nodes_extra(const struct rs_controller *c, int64_t now)
{
    json_t *nodes = json_object();

    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (!n)
            continue;
        json_t *j =
            json_pack("{s:s, s:s?, s:s?, s:o, s:I, s:b}", "name", n->name, "address", n->address,
                      "version", n->version, "resources", rs_resources_json(&n->total), "revision",
                      (json_int_t)(n->report ? n->report->revision : 0), "draining", n->draining);

        json_object_set(j, "labels", n->labels);
        json_object_set_new(j, "free", n->report ? json_incref(n->report->free) : json_object());
        json_object_set_new(j, "health", rs_ct_node_health(c, n, now));
        json_object_set_new(nodes, n->id, j);
    }
    return json_pack("{s:o, s:o}", "nodes", nodes, "lost_nodes", rs_ct_lost_json(c));
}

static json_t *default_options(bool http)
{
    const struct rs_http_options h = {.port = 8000,
                                      .root_path = "",
                                      .request_timeout = -1,
                                      .keep_alive_timeout = INT64_C(90000000000)};
    const struct rs_grpc_options g = {
        .port = 9000, .request_timeout = -1, .enable_reflection = true};

    return http ? rs_http_options_json(&h) : rs_grpc_options_json(&g);
}

json_t *rs_controller_details(const struct rs_controller *c, bool extended, int64_t now)
{
    const struct rs_config *conf = c->started;
    double wall = rs_ct_wall(c, now);
    double capacity = c->config ? c->config->target_capacity : -1;
    json_t *apps = json_object();
    json_t *j = json_object();

    json_object_set_new(
        j, "controller_info",
        actor(c, c->node_id, json_string(c->node_ip), "SERVE_CONTROLLER_ACTOR", c->log_file));
    json_object_set_new(j, "controller_health_metrics", health(c, now, wall));
    json_object_set_new(
        j, "proxy_location",
        json_string(rs_proxy_location_name(conf ? conf->proxy_location : RS_PROXY_EVERY_NODE)));
    json_object_set_new(j, "http_options",
                        conf ? rs_http_options_json(&conf->http) : default_options(true));
    json_object_set_new(j, "grpc_options",
                        conf ? rs_grpc_options_json(&conf->grpc) : default_options(false));
    json_object_set_new(j, "proxies", proxies(c));
    json_object_set_new(j, "target_capacity", capacity >= 0 ? json_real(capacity) : json_null());
    json_object_set_new(j, "restores_unset_config_options", json_true());
    json_object_set_new(j, "target_groups", target_groups(c));
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        if (app)
            json_object_set_new(apps, app->name, application(app, extended, wall));
    }
    json_object_set_new(j, "applications", apps);
    if (extended)
        json_object_set_new(j, "rserve", nodes_extra(c, now));
    return j;
}

/* --- summary --- */

static struct rs_controller_deployment_summary sum_deployment(const struct rs_ct_deployment *d)
{
    struct rs_ct_seen s = rs_ct_look(d->app->controller, d);
    unsigned up = s.running + s.updating;

    return (struct rs_controller_deployment_summary){
        .app = d->app->name,
        .name = d->name,
        .status = rs_deployment_status_name(d->status.status),
        .message = message_of(d),
        .kind = rs_deployment_kind_name(d->conf->kind),
        .target = d->wanted,
        .running = up,
        .starting = s.starting,
        .stopping = s.stopping,
        .pending = d->wanted > up + s.starting ? d->wanted - up - s.starting : 0,
        .start_failures = s.start_failures,
        .blocked = d->blocked ? d->blocked : s.blocked,
        .last_error = s.last_error,
    };
}

void rs_controller_summary(const struct rs_controller *c, struct rs_controller_summary *ret)
{
    size_t total = 0;
    size_t at = 0;
    struct rs_controller_deployment_summary *all;

    *ret = (struct rs_controller_summary){.settled = true};
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        total += app ? rs_map_count(&app->deployments) : 0;
    }
    ret->apps = rs_alloc((rs_map_count(&c->apps) + 1) * sizeof(*ret->apps));
    ret->storage = all = rs_alloc((total + 1) * sizeof(*all));
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);
        struct rs_controller_app_summary *s = &ret->apps[ret->n_apps];

        if (!app)
            continue;
        ret->n_apps++;
        *s = (struct rs_controller_app_summary){
            .name = app->name,
            .status = rs_app_status_name(app->status),
            .message = app->message,
            .route_prefix = app->live ? app->route_prefix : NULL,
            .start = !app->live || !app->import_path ? NULL
                     : app->spawn                    ? "spawn"
                                                     : "fork",
            .start_reason = app->start_reason,
            .building = app->build == RS_BUILD_WANTED || app->build == RS_BUILD_RUNNING,
            .deployments = &all[at],
        };
        for (size_t k = 0; k < rs_map_slots(&app->deployments); k++) {
            const struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            if (!d)
                continue;
            all[at] = sum_deployment(d);
            ret->replicas += all[at].target;
            ret->running += all[at].running;
            at++;
            s->n_deployments++;
            ret->deployments++;
        }
        ret->settled &= app->status != RS_APP_DEPLOYING && app->status != RS_APP_DELETING;
        ret->failed |= app->status == RS_APP_DEPLOY_FAILED || app->status == RS_APP_UNHEALTHY;
    }
}

void rs_controller_summary_fini(struct rs_controller_summary *s)
{
    free(s->apps);
    free(s->storage);
    *s = (struct rs_controller_summary){0};
}
