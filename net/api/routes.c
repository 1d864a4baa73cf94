/* The table of routes: dispatch, 405, GET /api and the OpenAPI document come from it. */
#include "net/api/internal.h"

#include <stdio.h>
#include <string.h>

#define OP(member) .fn = rs_api_v1_op, .op = offsetof(struct rs_api_ops, member)
#define VIEW(name) .fn = rs_api_v1_view, .view = rs_api_view_##name
#define V1_APP "/api/v1/applications/{app}"

static const struct rs_api_param put_query[] = {
    {"no_restart", "integer", "1: refused with 409 where it would restart replicas that serve"},
    {NULL},
};
static const struct rs_api_param ray_query[] = {
    {"api_type", "string", "only applications of this source: imperative or declarative"},
    {"extended", "integer", "1: with rserve's own members, under the key rserve"},
    {NULL},
};
static const struct rs_api_param of_app[] = {
    {"app", "string", "only of this application"},
    {NULL},
};
static const struct rs_api_param of_replicas[] = {
    {"app", "string", "only of this application"},
    {"deployment", "string", "only of deployments of this name"},
    {"state", "string", "only in this state, as Ray names it"},
    {"node", "string", "only on the node of this id or name"},
    {NULL},
};
static const struct rs_api_param of_metrics[] = {
    {"name", "string", "only figures whose name begins so"},
    {NULL},
};

static const struct rs_api_param of_events[] = {
    {"after", "integer", "only those after the one of this seq; else the last ones"},
    {"limit", "integer", "at most so many (1 to 10000, else 1000)"},
    {"wait", "integer", "with after: where there is none, for up to so many seconds (60) for one"},
    {"app", "string", "only of this application"},
    {"deployment", "string", "only of deployments of this name"},
    {"replica", "string", "only of this replica"},
    {"kind", "string", "only of this kind: app, deployment, replica, node, scale, deploy, .."},
    {NULL},
};
static const struct rs_api_param of_why[] = {
    {"app", "string", "only of this application"},
    {"deployment", "string", "only of this deployment of it"},
    {"replica", "string", "only of this replica of that, also one that has ended"},
    {NULL},
};
static const struct rs_api_param of_logs[] = {
    {"target", "string", "APP[#DEPLOYMENT[#REPLICA]]: whose output (default: everybody's)"},
    {"lines", "integer", "so many of the last lines (default 100); without a cursor"},
    {"since_s", "number", "only lines of the last so many seconds"},
    {"previous", "integer", "1: only of processes that have ended"},
    {"cursor", "string", "of the answer before: what came after it"},
    {"wait_s", "integer", "with a cursor: wait so long for a line, 0 to 30 s (default 0)"},
    {NULL},
};

const struct rs_api_route rs_api_routes[] = {
    {"GET", "/api", "this list", rs_api_list_routes, .answer = "[Route]"},
    {"GET", "/api/serve/applications", "details of all applications, as Ray has them",
     rs_api_get_applications, .query = ray_query, .answer = "object", .tagged = true},
    {"PUT", "/api/serve/applications", "deploy exactly this ServeConfigV2", rs_api_put_applications,
     .changes = true, .tagged = true, .query = put_query, .body = "object"},
    {"DELETE", "/api/serve/applications", "delete all applications", rs_api_delete_applications,
     .changes = true, .tagged = true},
    {"GET", "/api/v1/openapi.json", "this API, as an OpenAPI 3.1 document", rs_api_openapi,
     .answer = "object"},
    {"GET", "/api/v1/config", "the configuration that is desired", rs_api_v1_config,
     .answer = "Config", .tagged = true},
    {"PUT", "/api/v1/config", "deploy exactly this ServeConfigV2", rs_api_v1_put_config,
     .changes = true, .tagged = true, .query = put_query, .body = "object", .answer = "Change"},
    {"GET", "/api/v1/applications", "all applications", VIEW(applications),
     .answer = "Applications"},
    {"GET", V1_APP, "one application", rs_api_v1_application, .view = rs_api_view_application,
     .answer = "Application", .tagged = true},
    {"PUT", V1_APP, "deploy this application of a ServeConfigV2, and leave the others",
     rs_api_v1_put_application, .changes = true, .tagged = true, .query = put_query,
     .body = "object", .answer = "Change"},
    {"DELETE", V1_APP, "delete this application", rs_api_v1_delete_application, .changes = true,
     .tagged = true, .answer = "Change"},
    {"GET", V1_APP "/deployments", "its deployments", VIEW(app_deployments),
     .answer = "Deployments"},
    {"GET", V1_APP "/deployments/{deployment}", "one deployment", VIEW(deployment),
     .answer = "Deployment"},
    {"POST", V1_APP "/deployments/{deployment}/scale", "so many replicas until the next deploy",
     rs_api_scale, .changes = true, .body = "Scale", .answer = "Message"},
    {"GET", "/api/v1/deployments", "deployments of all applications", VIEW(deployments),
     .query = of_app, .answer = "Deployments"},
    {"GET", "/api/v1/replicas", "replicas of all applications", VIEW(replicas),
     .query = of_replicas, .answer = "Replicas"},
    {"GET", "/api/v1/replicas/{replica}", "one replica", VIEW(replica), .answer = "Replica"},
    {"DELETE", "/api/v1/replicas/{replica}",
     "another one starts in its place, then it finishes what it has and goes", OP(replace),
     .changes = true, .answer = "Message"},
    {"GET", "/api/v1/nodes", "the nodes, and what runs there", VIEW(nodes), .answer = "Nodes"},
    {"GET", "/api/v1/nodes/{node}", "one node, by its id or its name", VIEW(node),
     .answer = "Node"},
    {"GET", "/api/v1/metrics", "all figures, as they are now", rs_api_v1_metrics,
     .query = of_metrics, .answer = "Metrics"},
    {"GET", "/api/v1/events", "what happened, and who ordered it", OP(events), .query = of_events,
     .answer = "Events"},
    {"POST", "/api/v1/plan", "what a deploy of this configuration would do", OP(plan),
     .body = "object", .answer = "Plan"},
    {"GET", "/api/v1/why", "why things are as they are", OP(why), .query = of_why, .answer = "Why"},
    {"GET", V1_APP "/why", "why this application is as it is", OP(why_app), .answer = "Why"},
    {"GET", V1_APP "/deployments/{deployment}/why", "why this deployment is as it is",
     OP(why_deployment), .answer = "Why"},
    {"GET", "/api/v1/logs", "what replicas printed, the ended ones too", OP(logs), .query = of_logs,
     .answer = "Logs"},
    {"GET", "/api/v1/plan/{plan}", "a plan that had to wait for a build", OP(plan_result),
     .answer = "Plan"},
    {"GET", V1_APP "/history", "its configurations that ran", OP(history), .answer = "History"},
    {"POST", V1_APP "/rollback", "deploy the configuration that ran before, or the one named",
     OP(rollback), .changes = true, .body = "Rollback", .answer = "RolledBack"},
    {"POST", V1_APP "/rollout", "go on with its rollouts (resume), or back (abort)", OP(roll_app),
     .changes = true, .body = "Rollout", .answer = "Message"},
    {"POST", V1_APP "/deployments/{deployment}/rollout", "the same, of one deployment",
     OP(roll_deployment), .changes = true, .body = "Rollout", .answer = "Message"},
    {"GET", "/api/version", "versions", rs_api_version, .answer = "Version"},
    {"GET", "/api/ray/version", "versions", rs_api_version, .answer = "Version"},
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
