/* What an application asks of the ingress, as core/model reads it; and the rules of its routes. */
#include "core/model/policy.h"
#include "core/base/alloc.h"
#include "core/base/map.h"
#include "core/config/fields_policy.h"

#include <string.h>

json_t *rs_config_app_policy(const struct rs_config_app *app)
{
    static const char *const keys[] = {"max_body", "request_timeout_s", "idempotent",
                                       "priority", "max_priority",      "rate_limit",
                                       "routes"};
    const json_t *given = json_object_get(app->json, "rserve");
    json_t *policy = json_object();

    for (size_t i = 0; i < RS_COUNT(keys); i++) {
        json_t *v = json_object_get(given, keys[i]);

        if (v)
            json_object_set(policy, keys[i], v);
    }
    return policy;
}

/* "GET /v1", or "/v1" for all methods. */
static const char *route_name(struct rs_buf *out, const char *path, const char *method)
{
    rs_buf_clear(out);
    rs_buf_printf(out, "%s%s%.100s", method, *method ? " " : "", path);
    return rs_buf_text(out);
}

static void one_route(struct rs_walk *w, struct rs_map *seen, json_t *route,
                      const struct rs_node *map)
{
    const char *path = rs_json_str(route, "path", NULL);
    const json_t *methods = json_object_get(route, "methods");
    bool refused = rs_node_get(map, "methods") && !methods;
    size_t n = json_array_size(methods);
    rs_auto(rs_buf_fini) struct rs_buf name = {0};

    for (size_t i = 0; path && !refused && i < (n ? n : 1); i++) {
        const char *method = n ? json_string_value(json_array_get(methods, i)) : "";
        json_t *old = method ? rs_map_put(seen, route_name(&name, path, method), route) : NULL;

        if (old && old != route) {
            rs_walk_error(w, map->line, map->column, "two routes are for %s", rs_buf_text(&name));
            return;
        }
    }
    if (path && json_object_size(route) == 1 + (methods != NULL) &&
        map->count == 1 + (methods != NULL))
        rs_walk_warn(w, map->line, map->column,
                     "says nothing about its requests: expected max_body, request_timeout_s, "
                     "idempotent, priority or rate_limit beside the path");
}

void rs_rules_routes(struct rs_walk *w, const json_t *app, const struct rs_node *map)
{
    const struct rs_node_entry *e = rs_node_get(map, "rserve");
    const json_t *routes = json_object_get(json_object_get(app, "rserve"), "routes");
    struct rs_map seen = {0};
    size_t back = rs_walk_key(w, "rserve"), list;

    e = e && e->value->kind == RS_NODE_MAP ? rs_node_get(e->value, "routes") : NULL;
    list = rs_walk_key(w, "routes");
    if (e && json_array_size(routes) > RS_POLICY_ROUTES_MAX)
        rs_walk_error(w, e->line, e->column, "expected at most %d routes, got %zu",
                      RS_POLICY_ROUTES_MAX, json_array_size(routes));
    for (size_t i = 0; e && i < e->value->count && i < json_array_size(routes); i++) {
        size_t here = rs_walk_index(w, i);

        if (e->value->items[i]->kind == RS_NODE_MAP)
            one_route(w, &seen, json_array_get(routes, i), e->value->items[i]);
        rs_walk_back(w, here);
    }
    rs_walk_back(w, list);
    rs_walk_back(w, back);
    rs_map_fini(&seen);
}
