/* What /api/v1 shows, out of the details that the head tells: lists of deployments, replicas and nodes.
 * Pure: the shapes are in schemas.c, the head's document in sched/controller-view.c.
 */
#include "net/api/internal.h"

#include "core/base/json.h"

#include <string.h>

static json_t *apps_of(const json_t *details)
{
    return json_object_get(details, "applications");
}

/* A copy that knows where it belongs. */
static json_t *placed(const json_t *j, const char *app, const char *deployment)
{
    json_t *copy = json_copy((json_t *)(uintptr_t)j);

    json_object_set_new(copy, "app", json_string(app));
    if (deployment)
        json_object_set_new(copy, "deployment", json_string(deployment));
    return copy;
}

static json_t *replicas_of(const json_t *deployment, const char *key, const char *app,
                           const char *name)
{
    json_t *list = json_array(), *r;
    size_t i;

    json_array_foreach (json_object_get(deployment, key), i, r)
        json_array_append_new(list, placed(r, app, name));
    return list;
}

static json_t *deployment_of(const json_t *d, const char *app, const char *name)
{
    json_t *copy = placed(d, app, NULL);

    json_object_set_new(copy, "replicas", replicas_of(d, "replicas", app, name));
    json_object_set_new(copy, "recent_dead_replicas",
                        replicas_of(d, "recent_dead_replicas", app, name));
    return copy;
}

static json_t *deployments_of(const json_t *app, const char *name)
{
    json_t *list = json_array(), *d;
    const char *key;

    json_object_foreach (json_object_get(app, "deployments"), key, d)
        json_array_append_new(list, deployment_of(d, name, key));
    return list;
}

static json_t *application_of(const struct rs_api_call *call, const json_t *app, const char *name)
{
    json_t *copy = json_copy((json_t *)(uintptr_t)app);
    char etag[RS_ETAG_LEN];

    json_object_set_new(copy, "deployments", deployments_of(app, name));
    if (rs_api_etag(call->desired, name, etag))
        json_object_set_new(copy, "etag", json_string(etag));
    return copy;
}

static int no_app(const char *name, struct rs_error *err)
{
    return rs_error_set(err, RS_NOT_FOUND,
                        "there is no application '%.100s' (GET /api/v1/applications lists them)",
                        name);
}

int rs_api_view_applications(const struct rs_api_call *call, const json_t *details, json_t **ret,
                             struct rs_error *err)
{
    json_t *list = json_array(), *app;
    const char *name;

    (void)err;
    json_object_foreach (apps_of(details), name, app)
        json_array_append_new(list, application_of(call, app, name));
    *ret = json_pack("{s:o}", "applications", list);
    return 0;
}

int rs_api_view_application(const struct rs_api_call *call, const json_t *details, json_t **ret,
                            struct rs_error *err)
{
    const char *name = rs_api_part(call, 0);
    const json_t *app = json_object_get(apps_of(details), name);

    if (!app)
        return no_app(name, err);
    *ret = application_of(call, app, name);
    return 0;
}

static bool passes(const struct rs_api_call *call, const char *key, const char *value)
{
    const char *wanted = rs_api_query(call, key);

    return !wanted || !*wanted || strcmp(wanted, value) == 0;
}

int rs_api_view_deployments(const struct rs_api_call *call, const json_t *details, json_t **ret,
                            struct rs_error *err)
{
    json_t *list = json_array(), *app;
    const char *name;

    (void)err;
    json_object_foreach (apps_of(details), name, app) {
        rs_auto(rs_json_decrefp) json_t *some = deployments_of(app, name);

        if (passes(call, "app", name))
            json_array_extend(list, some);
    }
    *ret = json_pack("{s:o}", "deployments", list);
    return 0;
}

int rs_api_view_app_deployments(const struct rs_api_call *call, const json_t *details, json_t **ret,
                                struct rs_error *err)
{
    const char *name = rs_api_part(call, 0);
    const json_t *app = json_object_get(apps_of(details), name);

    if (!app)
        return no_app(name, err);
    *ret = json_pack("{s:o}", "deployments", deployments_of(app, name));
    return 0;
}

int rs_api_view_deployment(const struct rs_api_call *call, const json_t *details, json_t **ret,
                           struct rs_error *err)
{
    const char *name = rs_api_part(call, 0), *deployment = rs_api_part(call, 1);
    const json_t *app = json_object_get(apps_of(details), name);
    const json_t *d = json_object_get(json_object_get(app, "deployments"), deployment);

    if (!app)
        return no_app(name, err);
    if (!d)
        return rs_error_set(err, RS_NOT_FOUND, "application '%.100s' has no deployment '%.100s'",
                            name, deployment);
    *ret = deployment_of(d, name, deployment);
    return 0;
}

/* Every replica that lives, with what it belongs to; a new list. */
static json_t *all_replicas(const json_t *details)
{
    json_t *list = json_array(), *app, *d;
    const char *name, *key;

    json_object_foreach (apps_of(details), name, app) {
        json_object_foreach (json_object_get(app, "deployments"), key, d) {
            rs_auto(rs_json_decrefp) json_t *some = replicas_of(d, "replicas", name, key);

            json_array_extend(list, some);
        }
    }
    return list;
}

static bool is_on(const struct rs_api_call *call, const json_t *replica)
{
    const char *node = rs_json_str(json_object_get(replica, "rserve"), "node", "");

    return passes(call, "node", rs_json_str(replica, "node_id", "")) || passes(call, "node", node);
}

int rs_api_view_replicas(const struct rs_api_call *call, const json_t *details, json_t **ret,
                         struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *all = all_replicas(details);
    json_t *list = json_array(), *r;
    size_t i;

    (void)err;
    json_array_foreach (all, i, r)
        if (passes(call, "app", rs_json_str(r, "app", "")) &&
            passes(call, "deployment", rs_json_str(r, "deployment", "")) &&
            passes(call, "state", rs_json_str(r, "state", "")) && is_on(call, r))
            json_array_append(list, r);
    *ret = json_pack("{s:o}", "replicas", list);
    return 0;
}

int rs_api_view_replica(const struct rs_api_call *call, const json_t *details, json_t **ret,
                        struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *all = all_replicas(details);
    const char *id = rs_api_part(call, 0);
    json_t *r;
    size_t i;

    json_array_foreach (all, i, r) {
        if (strcmp(rs_json_str(r, "replica_id", ""), id) == 0) {
            *ret = json_incref(r);
            return 0;
        }
    }
    return rs_error_set(err, RS_NOT_FOUND,
                        "no replica '%.100s' lives (GET /api/v1/replicas lists them)", id);
}

/* --- nodes --------------------------------------------------------------------------------------- */

static json_t *node_of(const json_t *node, const char *id, const json_t *details,
                       const json_t *replicas)
{
    json_t *copy = json_copy((json_t *)(uintptr_t)node), *here = json_array(), *r;
    const json_t *proxy = json_object_get(json_object_get(details, "proxies"), id);
    size_t i;

    json_array_foreach ((json_t *)(uintptr_t)replicas, i, r)
        if (strcmp(rs_json_str(r, "node_id", ""), id) == 0)
            json_array_append(here, r);
    json_object_set_new(copy, "node_id", json_string(id));
    json_object_set_new(copy, "replicas", here);
    if (proxy)
        json_object_set(copy, "proxy", json_object_get(proxy, "status"));
    return copy;
}

static json_t *nodes_of(const json_t *details)
{
    return json_object_get(json_object_get(details, "rserve"), "nodes");
}

int rs_api_view_nodes(const struct rs_api_call *call, const json_t *details, json_t **ret,
                      struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *replicas = all_replicas(details);
    json_t *list = json_array(), *node;
    const char *id;

    (void)call;
    (void)err;
    json_object_foreach (nodes_of(details), id, node)
        json_array_append_new(list, node_of(node, id, details, replicas));
    *ret = json_pack("{s:o}", "nodes", list);
    return 0;
}

int rs_api_view_node(const struct rs_api_call *call, const json_t *details, json_t **ret,
                     struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *replicas = all_replicas(details);
    const char *wanted = rs_api_part(call, 0), *id;
    json_t *node;

    json_object_foreach (nodes_of(details), id, node) {
        if (strcmp(id, wanted) == 0 || strcmp(rs_json_str(node, "name", ""), wanted) == 0) {
            *ret = node_of(node, id, details, replicas);
            return 0;
        }
    }
    return rs_error_set(err, RS_NOT_FOUND,
                        "there is no node '%.100s' (GET /api/v1/nodes lists them)", wanted);
}
