/* The table of routes: dispatch, 405, GET /api and the OpenAPI document come from it. */
#include "net/api/internal.h"

#include <stdio.h>
#include <string.h>

#define OP(member) .fn = rs_api_v1_op, .op = offsetof(struct rs_api_ops, member)

const struct rs_api_route rs_api_routes[] = {
    {"GET", "/api", "this list", rs_api_list_routes},
    {"GET", "/api/serve/applications", "details of all applications; ?api_type=, ?extended=1",
     rs_api_get_applications},
    {"PUT", "/api/serve/applications", "deploy exactly this ServeConfigV2 (JSON)",
     rs_api_put_applications, .changes = true},
    {"DELETE", "/api/serve/applications", "delete all applications", rs_api_delete_applications,
     .changes = true},
    {"DELETE", "/api/v1/applications/{app}", "delete this application",
     rs_api_v1_delete_application, .changes = true},
    {"POST", "/api/v1/applications/{app}/deployments/{deployment}/scale",
     "so many replicas until the next deploy: {\"target_num_replicas\": n}", rs_api_scale,
     .changes = true},
    {"GET", "/api/v1/events", "what happened", OP(events)},
    {"POST", "/api/v1/plan", "what a deploy of this configuration would do", OP(plan)},
    {"GET", "/api/v1/why", "why it is as it is; ?app=, ?deployment=", OP(why)},
    {"GET", "/api/version", "versions", rs_api_version},
    {"GET", "/api/ray/version", "versions", rs_api_version},
    {"GET", "/api/gcs_healthz", "success", rs_api_health},
    {"GET", "/-/healthz", "success", rs_api_health},
    {"GET", "/metrics", "figures for Prometheus", rs_api_metrics},
};
const size_t rs_api_n_routes = RS_COUNT(rs_api_routes);

static bool is_path(const char *path, const char *route)
{
    while (*route) {
        if (*route == '{' && *path && *path != '/') {
            path += strcspn(path, "/");
            route += strcspn(route, "/");
        } else if (*path++ != *route++) {
            return false;
        }
    }
    return !*path || strcmp(path, "/") == 0;
}

const struct rs_api_route *rs_api_route_find(const char *method, const char *path)
{
    if (strcmp(method, "HEAD") == 0)
        method = "GET";
    for (size_t i = 0; i < rs_api_n_routes; i++)
        if (strcmp(rs_api_routes[i].method, method) == 0 && is_path(path, rs_api_routes[i].path))
            return &rs_api_routes[i];
    return NULL;
}

void rs_api_route_allow(const char *path, char *out, size_t size)
{
    out[0] = '\0';
    for (size_t i = 0; i < rs_api_n_routes; i++) {
        size_t used = strlen(out);
        const char *method = rs_api_routes[i].method;

        if (is_path(path, rs_api_routes[i].path))
            snprintf(out + used, size - used, "%s%s%s", used ? ", " : "", method,
                     strcmp(method, "GET") == 0 ? ", HEAD" : "");
    }
}

void rs_api_route_parts(const struct rs_api_route *route, const char *path,
                        char *part[RS_API_PARTS])
{
    const char *r = route->path;

    for (unsigned n = 0; *r && n < RS_API_PARTS;) {
        size_t len = strcspn(path, "/");

        if (*r == '{')
            part[n++] = rs_strndup(path, len);
        r += strcspn(r, "/");
        r += *r == '/';
        path += len;
        path += *path == '/';
    }
}
