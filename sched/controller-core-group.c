/* Placement groups: room that is kept on nodes for who comes later. rs_ct_place finds it. */
#include "sched/controller-core.h"

#include "core/base/alloc.h"
#include "core/base/json.h"

#include <stdlib.h>
#include <string.h>

#define MAX_GROUPS 1000
#define MAX_BUNDLES 1000

static const char *const names[] = {"PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"};

const char *rs_ct_strategy_name(enum rs_ct_strategy s)
{
    return names[s];
}

void rs_ct_group_free(struct rs_ct_group *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->n_bundles; i++) {
        rs_resources_fini(&g->bundles[i].want);
        rs_resources_fini(&g->bundles[i].free);
        json_decref(g->bundles[i].selector);
    }
    free(g->bundles);
    free(g->id);
    free(g->name);
    free(g->owner);
    free(g->why);
    free(g);
}

struct rs_ct_group *rs_ct_group_find(const struct rs_controller *c, const char *id)
{
    return rs_map_get(&c->core.groups, id);
}

static struct rs_ct_group *by_name(const struct rs_controller *c, const char *name)
{
    for (size_t i = 0; i < rs_map_slots(&c->core.groups); i++) {
        struct rs_ct_group *g = rs_map_at(&c->core.groups, i, NULL);

        if (g && *g->name && strcmp(g->name, name) == 0)
            return g;
    }
    return NULL;
}

void rs_ct_group_drop(struct rs_controller *c, struct rs_ct_group *g, int64_t now)
{
    rs_ct_actors_group_gone(c, g->id, now);
    rs_map_remove(&c->core.groups, g->id);
    rs_ct_group_free(g);
}

void rs_ct_groups_client_gone(struct rs_controller *c, const char *client, int64_t now)
{
    for (size_t i = 0; i < rs_map_slots(&c->core.groups); i++) {
        struct rs_ct_group *g = rs_map_at(&c->core.groups, i, NULL);

        if (g && g->owner && strcmp(g->owner, client) == 0)
            rs_ct_group_drop(c, g, now);
    }
}

void rs_ct_groups_node_left(struct rs_controller *c, const struct rs_ct_node *n)
{
    for (size_t i = 0; i < rs_map_slots(&c->core.groups); i++) {
        struct rs_ct_group *g = rs_map_at(&c->core.groups, i, NULL);

        for (size_t b = 0; g && b < g->n_bundles; b++)
            if (g->bundles[b].node == n) {
                g->bundles[b].node = NULL;
                g->placed = false;
            }
    }
}

static int read_bundles(struct rs_ct_group *g, const json_t *bundles, struct rs_error *err)
{
    size_t i;
    const json_t *b;

    if (!json_is_array(bundles) || json_array_size(bundles) == 0 ||
        json_array_size(bundles) > MAX_BUNDLES)
        return rs_error_set(err, RS_INVALID, "expected 1 to %d bundles", MAX_BUNDLES);
    g->bundles = rs_alloc(json_array_size(bundles) * sizeof(*g->bundles));
    json_array_foreach (bundles, i, b) {
        if (rs_resources_from_json(&g->bundles[i].want, b, err) < 0)
            return rs_error_wrap(err, "bundle %zu", i);
        g->n_bundles = i + 1;
    }
    return 0;
}

int rs_ct_group_strategy(struct rs_ct_group *g, const char *name, struct rs_error *err)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i], name) == 0) {
            g->strategy = (enum rs_ct_strategy)i;
            return 0;
        }
    return rs_error_set(err, RS_INVALID,
                        "Invalid placement group strategy '%.40s'. Supported strategies are: PACK, "
                        "SPREAD, STRICT_PACK, STRICT_SPREAD.",
                        name);
}

static json_t *create(struct rs_controller *c, const char *client, const json_t *msg)
{
    const char *id = rs_json_str(msg, "group_id", "");
    bool detached = strcmp(rs_json_str(msg, "lifetime", ""), "detached") == 0;
    struct rs_ct_group *g = rs_alloc(sizeof(*g));
    struct rs_error err = {0};

    g->id = rs_strdup(id);
    g->name = rs_strdup(rs_json_str(msg, "name", ""));
    g->owner = detached ? NULL : rs_strdup(client);
    if (!*id || rs_map_get(&c->core.groups, id))
        rs_error_set(&err, RS_INVALID, "expected a new group_id; got '%.80s'", id);
    else if (*g->name && by_name(c, g->name))
        rs_error_set(&err, RS_CONFLICT, "a placement group named '%.80s' exists already", g->name);
    else if (rs_map_count(&c->core.groups) >= MAX_GROUPS)
        rs_error_set(&err, RS_CONFLICT, "there are %d placement groups: no more are made",
                     MAX_GROUPS);
    else if (read_bundles(g, json_object_get(msg, "bundles"), &err) == 0)
        (void)!rs_ct_group_strategy(g, rs_json_str(msg, "strategy", "PACK"), &err);
    if (err.msg[0]) {
        rs_ct_group_free(g);
        return rs_ct_core_refuse("ValueError", "%s", err.msg);
    }
    rs_map_put(&c->core.groups, id, g);
    return json_object();
}

json_t *rs_ct_group_op(struct rs_controller *c, const char *client, const char *op,
                       const json_t *msg, int64_t now)
{
    const char *name = rs_json_str(msg, "name", "");
    struct rs_ct_group *g = rs_ct_group_find(c, rs_json_str(msg, "group_id", ""));

    if (strcmp(op, "create_group") == 0)
        return create(c, client, msg);
    if (strcmp(op, "remove_group") == 0) {
        if (g)
            rs_ct_group_drop(c, g, now);
        return json_object();
    }
    if (strcmp(op, "group_info") != 0)
        return NULL;
    if (!g && *name)
        g = by_name(c, name);
    if (!g)
        return rs_ct_core_refuse("ValueError", "Failed to look up placement group with name: %s",
                                 *name ? name : rs_json_str(msg, "group_id", "?"));
    return rs_ct_group_row(g);
}
