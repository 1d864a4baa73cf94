/* What programs are told of actors, nodes, workers, placement groups and resources. */
#include "sched/controller-core.h"

#include "core/base/alloc.h"
#include "core/base/json.h"

#include <stdlib.h>
#include <string.h>

static json_t *text_or_null(const char *text)
{
    return text && *text ? json_string(text) : json_null();
}

json_t *rs_ct_actor_row(const struct rs_controller *c, const struct rs_ct_actor *a)
{
    json_t *row = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:I, s:b}", "actor_id", a->id,
                            "class_name", a->class_name, "state", rs_ct_actor_state_name(a->state),
                            "name", a->name ? a->name : "", "ray_namespace", a->namespace_, "pid",
                            a->state == RS_ACTOR_DEAD ? 0 : a->pid, "num_restarts",
                            (json_int_t)a->restarts, "is_detached", !a->owner);
    const char *pending = a->d && a->state != RS_ACTOR_ALIVE ? a->d->blocked : NULL;

    (void)c;
    json_object_set_new(row, "node_id", text_or_null(a->node_id));
    json_object_set_new(row, "death_cause", text_or_null(a->cause));
    json_object_set_new(row, "pending", text_or_null(pending));
    json_object_set_new(row, "start_time_s", json_real(a->started_at));
    json_object_set_new(row, "required_resources",
                        a->d ? rs_resources_json(&a->d->conf->resources) : json_object());
    json_object_set_new(row, "placement_group_id", text_or_null(a->d ? a->d->group : NULL));
    return row;
}

json_t *rs_ct_group_row(const struct rs_ct_group *g)
{
    json_t *bundles = json_array(), *nodes = json_array();

    for (size_t i = 0; i < g->n_bundles; i++) {
        json_array_append_new(bundles, rs_resources_json(&g->bundles[i].want));
        json_array_append_new(nodes,
                              text_or_null(g->bundles[i].node ? g->bundles[i].node->id : NULL));
    }
    json_t *row = json_pack("{s:s, s:s, s:s, s:s, s:b, s:o, s:o}", "placement_group_id", g->id,
                            "name", g->name, "strategy", rs_ct_strategy_name(g->strategy), "state",
                            g->placed ? "CREATED" : "PENDING", "is_detached", !g->owner, "bundles",
                            bundles, "nodes", nodes);

    json_object_set_new(row, "pending", text_or_null(g->placed ? NULL : g->why));
    return row;
}

/* --- rows for what Serve runs --- */

static json_t *serve_row(const char *class_name, const char *name, const char *id,
                         const char *node_id, const char *state, int pid, double start)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:f, s:i, s:b}", "actor_id", id,
                     "class_name", class_name, "state", state, "name", name, "ray_namespace",
                     "serve", "node_id", node_id, "pid", pid, "start_time_s", start, "num_restarts",
                     0, "is_detached", 1);
}

static void add_replicas(json_t *rows, const struct rs_controller *c, const struct rs_ct_node *n)
{
    for (size_t i = 0; n->report && i < n->report->n_replicas; i++) {
        const struct rs_report_replica *r = &n->report->replicas[i];

        if (!rs_map_get(&c->apps, r->app) || r->state == RS_REPLICA_STOPPED)
            continue;
        rs_auto(rs_freep) char *class_name =
            rs_asprintf("ServeReplica:%s:%s", r->app, r->deployment);
        rs_auto(rs_freep) char *name =
            rs_asprintf("SERVE_REPLICA::%s#%s#%s", r->app, r->deployment, r->replica_id);

        json_array_append_new(
            rows, serve_row(class_name, name, r->replica_id, n->id,
                            r->state < RS_REPLICA_RUNNING ? "PENDING_CREATION" : "ALIVE", r->pid,
                            r->start_time_s));
    }
}

static json_t *actors(const struct rs_controller *c)
{
    json_t *rows = json_array();

    for (size_t i = 0; i < rs_map_slots(&c->core.actors); i++) {
        const struct rs_ct_actor *a = rs_map_at(&c->core.actors, i, NULL);

        if (a)
            json_array_append_new(rows, rs_ct_actor_row(c, a));
    }
    json_array_append_new(rows, serve_row("ServeController", "SERVE_CONTROLLER_ACTOR", "controller",
                                          c->node_id, "ALIVE", 0, 0));
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (!n)
            continue;
        rs_auto(rs_freep) char *name = rs_asprintf("SERVE_PROXY_ACTOR-%s", n->id);
        rs_auto(rs_freep) char *id = rs_asprintf("proxy-%s", n->id);

        json_array_append_new(rows, serve_row("ProxyActor", name, id, n->id,
                                              n->report ? "ALIVE" : "PENDING_CREATION", 0, 0));
        add_replicas(rows, c, n);
    }
    return rows;
}

static json_t *nodes(const struct rs_controller *c)
{
    json_t *rows = json_array();

    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (!n)
            continue;
        json_array_append_new(rows,
                              json_pack("{s:s, s:s, s:s?, s:b, s:b, s:O, s:o}", "node_id", n->id,
                                        "name", n->name, "address", n->address, "alive", 1, "head",
                                        strcmp(n->id, c->node_id) == 0, "labels", n->labels,
                                        "resources", rs_resources_json(&n->total)));
    }
    return rows;
}

static json_t *groups(const struct rs_controller *c)
{
    json_t *rows = json_array();

    for (size_t i = 0; i < rs_map_slots(&c->core.groups); i++) {
        const struct rs_ct_group *g = rs_map_at(&c->core.groups, i, NULL);

        if (g)
            json_array_append_new(rows, rs_ct_group_row(g));
    }
    return rows;
}

static json_t *pools(const struct rs_controller *c)
{
    json_t *rows = json_array();

    for (size_t i = 0; i < rs_map_slots(&c->core.pools); i++) {
        const struct rs_ct_pool *p = rs_map_at(&c->core.pools, i, NULL);

        if (!p)
            continue;
        json_t *row =
            json_pack("{s:s, s:s, s:i, s:i, s:o}", "deployment", p->key, "app", p->d->app->name,
                      "tasks", (int)p->total, "workers", (int)p->d->n_slots, "each",
                      rs_resources_json(&p->d->conf->resources));

        json_object_set_new(row, "pending", text_or_null(p->d->blocked));
        json_array_append_new(rows, row);
    }
    return rows;
}

json_t *rs_ct_list_op(struct rs_controller *c, const json_t *msg, int64_t now)
{
    const char *what = rs_json_str(msg, "what", "");
    json_t *rows = NULL;

    (void)now;
    if (strcmp(what, "actors") == 0)
        rows = actors(c);
    else if (strcmp(what, "nodes") == 0)
        rows = nodes(c);
    else if (strcmp(what, "groups") == 0)
        rows = groups(c);
    else if (strcmp(what, "pools") == 0)
        rows = pools(c);
    if (!rows)
        return rs_ct_core_refuse("ValueError", "list: unknown kind '%s'", what);
    return json_pack("{s:o}", "rows", rows);
}

/* Workers that have nothing to do keep nothing from anyone. */
static void give_idle(struct rs_controller *c)
{
    for (size_t i = 0; i < rs_map_slots(&c->core.pools); i++) {
        const struct rs_ct_pool *p = rs_map_at(&c->core.pools, i, NULL);

        for (size_t k = p ? p->total : 0; p && !p->d->group && k < p->d->n_slots; k++)
            rs_resources_give(&c->core.available, &p->d->conf->resources);
    }
}

json_t *rs_ct_resources_op(struct rs_controller *c)
{
    struct rs_resources total = {0};
    json_t *reply;

    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (n)
            rs_resources_give(&total, &n->total);
    }
    rs_ct_place(c);
    give_idle(c);
    reply = json_pack("{s:o, s:o}", "total", rs_resources_json(&total), "available",
                      rs_resources_json(&c->core.available));
    rs_resources_fini(&total);
    return reply;
}
