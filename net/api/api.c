#include "net/api/api.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "net/api/guard.h"
#include "net/api/process.h"
#include "net/http/web.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define RAY_VERSION "2.60.0" /* whose API this is */
#define RAY_API_VERSION "4"  /* of the dashboard's endpoints */

enum {
    BODY_MAX = 4 * 1024 * 1024,
    IDLE_S = 30,
    CONNECTIONS_MAX = 256,
    PATH_SHOWN = 200,
    ERROR_SHOWN = 480,
    REPLICAS_MAX = 1000000
};

static const char type_json[] = "application/json; charset=utf-8";
static const char type_text[] = "text/plain; charset=utf-8";
static const char type_metrics[] = "text/plain; version=0.0.4; charset=utf-8";

struct rs_api {
    struct rs_web *web;
    struct rs_guard guard;
    struct rs_metrics *metrics;
    const struct rs_api_ops *ops;
    void *arg;
    char *token, *version, *commit, *session, *driver_socket;
    char hostname[256];
};

struct route {
    const char *method, *path, *help;
    bool changes;
    void (*fn)(struct rs_api *api, const struct rs_web_request *req, struct rs_web_answer *a);
};

/* --- answers --------------------------------------------------------------------------------------- */

static void answer_text(struct rs_web_answer *a, int status, const char *text)
{
    a->status = status;
    a->type = type_text;
    rs_buf_puts(&a->body, text);
}

static void answer_json(struct rs_web_answer *a, int status, const json_t *value)
{
    rs_auto(rs_freep) char *text = rs_json_dump(value);

    a->status = status;
    a->type = type_json;
    rs_buf_puts(&a->body, text);
}

static void RS_PRINTF(3, 4) answer_error(struct rs_web_answer *a, int status, const char *fmt, ...)
{
    rs_auto(rs_json_decrefp) json_t *value = NULL;
    rs_auto(rs_freep) char *why = NULL;
    struct rs_buf clean = {0};
    va_list args;

    va_start(args, fmt);
    why = rs_vasprintf(fmt, args);
    va_end(args);
    rs_text_fit(&clean, why, ERROR_SHOWN); /* it may quote anything: JSON wants UTF-8 */
    value = json_pack("{s:s}", "error", rs_buf_text(&clean));
    answer_json(a, status, value);
    rs_buf_fini(&clean);
}

/* --- routes ---------------------------------------------------------------------------------------- */

/* Part number `n` of "/0/1/2", a copy. */
static char *path_part(const char *path, unsigned n)
{
    for (path++; n > 0 && *path; n--) {
        path += strcspn(path, "/");
        path += *path == '/';
    }
    return rs_strndup(path, strcspn(path, "/"));
}

/* A copy of the details with the applications of this source only. */
static json_t *of_source(json_t *details, const char *source)
{
    json_t *applications = json_object_get(details, "applications");
    json_t *some = json_object(), *copy = json_object();
    const char *key;
    json_t *value;

    json_object_foreach (applications, key, value)
        if (strcasecmp(rs_json_str(value, "source", ""), source) == 0)
            json_object_set(some, key, value);
    json_object_update(copy, details);
    json_object_set_new(copy, "applications", some);
    return copy;
}

static void get_applications(struct rs_api *api, const struct rs_web_request *req,
                             struct rs_web_answer *a)
{
    rs_auto(rs_json_decrefp) json_t *details = NULL, *some = NULL;
    const char *source = rs_web_query(req, "api_type");
    const char *extended = rs_web_query(req, "extended");

    if (source && source[0] && strcasecmp(source, "imperative") != 0 &&
        strcasecmp(source, "declarative") != 0) {
        answer_text(a, 400, "");
        rs_buf_printf(&a->body,
                      "Invalid 'api_type' value: '%.*s'. Must be one of: imperative, declarative",
                      PATH_SHOWN, source);
        return;
    }
    details = api->ops->details(extended && strcmp(extended, "1") == 0, api->arg);
    if (!details) {
        answer_text(a, 503, "The controller does not answer yet.");
        return;
    }
    if (source && source[0])
        some = of_source(details, source);
    answer_json(a, 200, some ? some : details);
}

static void answer_change(struct rs_web_answer *a, int r, int status, struct rs_buf *error)
{
    if (r == 0) {
        a->status = 200;
    } else {
        answer_text(a, status >= 400 ? status : 400, "");
        rs_buf_append(&a->body, rs_buf_text(error), rs_buf_len(error));
    }
    rs_buf_fini(error);
}

static void put_applications(struct rs_api *api, const struct rs_web_request *req,
                             struct rs_web_answer *a)
{
    struct rs_buf error = {0};
    int status = 0;
    int r = api->ops->apply(req->body, req->len, &error, &status, api->arg);

    answer_change(a, r, status, &error);
}

static void delete_applications(struct rs_api *api, const struct rs_web_request *req,
                                struct rs_web_answer *a)
{
    struct rs_buf error = {0};
    int status = 0;
    int r = api->ops->delete_all(&error, &status, api->arg);

    (void)req;
    answer_change(a, r, status, &error);
}

static void delete_application(struct rs_api *api, const struct rs_web_request *req,
                               struct rs_web_answer *a)
{
    rs_auto(rs_freep) char *app = path_part(req->path, 3);
    struct rs_buf error = {0};
    int status = 0;
    int r = api->ops->delete_app(app, &error, &status, api->arg);

    answer_change(a, r, status, &error);
}

/* {"key": "text"} with the blank that Ray writes here and compares may see. */
static void answer_spaced(struct rs_web_answer *a, int status, const char *key, const char *text)
{
    struct rs_buf clean = {0};
    rs_auto(rs_json_decrefp) json_t *value = NULL;
    rs_auto(rs_freep) char *json = NULL;

    rs_text_fit(&clean, text, ERROR_SHOWN);
    value = json_pack("{s:s}", key, rs_buf_text(&clean));
    json = json_dumps(value, JSON_ENSURE_ASCII);
    a->status = status;
    a->type = type_json;
    rs_buf_puts(&a->body, json ? json : "{}");
    rs_buf_fini(&clean);
}

/* The body of a scale request, checked as strictly as Ray does. -1: *ret says what is wrong. */
static int64_t replicas_of(const struct rs_web_request *req, struct rs_buf *why)
{
    struct rs_error err = {0};
    rs_auto(rs_json_decrefp) json_t *body = NULL;
    const json_t *n;

    if (rs_json_parse(&body, req->body, req->len, "body", &err) < 0) {
        rs_buf_printf(why, "Invalid request body: %s", err.msg);
        return -1;
    }
    n = json_object_get(body, "target_num_replicas");
    if (json_is_integer(n) && json_integer_value(n) >= 0 && json_integer_value(n) <= REPLICAS_MAX)
        return json_integer_value(n);
    rs_buf_printf(why,
                  "Invalid request body: target_num_replicas: expected an integer from 0 to %d, %s",
                  REPLICAS_MAX, n ? "got another value" : "which is missing");
    return -1;
}

static void scale_deployment(struct rs_api *api, const struct rs_web_request *req,
                             struct rs_web_answer *a)
{
    struct rs_buf error = {0};
    rs_auto(rs_freep) char *app = path_part(req->path, 3), *deployment = path_part(req->path, 5);
    int64_t replicas = replicas_of(req, &error);
    int status = 0;

    if (replicas < 0)
        answer_spaced(a, 400, "error", rs_buf_text(&error));
    else if (api->ops->scale(app, deployment, (unsigned)replicas, &error, &status, api->arg) < 0)
        answer_spaced(a, status >= 400 ? status : 400, "error", rs_buf_text(&error));
    else
        answer_spaced(a, 200, "message",
                      "Scaling request received. Deployment will get scaled asynchronously.");
    rs_buf_fini(&error);
}

static void get_version(struct rs_api *api, const struct rs_web_request *req,
                        struct rs_web_answer *a)
{
    rs_auto(rs_json_decrefp) json_t *value = json_pack(
        "{s:s,s:s,s:s,s:s,s:s,s:s,s:s?}", "version", RAY_API_VERSION, "ray_version", RAY_VERSION,
        "ray_commit", api->commit, "session_name", api->session, "rserve_version", api->version,
        "rserve_commit", api->commit, "driver_socket", api->driver_socket);

    (void)req;
    answer_json(a, 200, value);
}

static void get_metrics(struct rs_api *api, const struct rs_web_request *req,
                        struct rs_web_answer *a)
{
    (void)req;
    if (api->ops->collect)
        api->ops->collect(api->arg);
    a->status = 200;
    a->type = type_metrics;
    if (api->metrics)
        rs_metrics_text(api->metrics, &a->body);
    rs_process_text(&a->body);
}

static void get_health(struct rs_api *api, const struct rs_web_request *req,
                       struct rs_web_answer *a)
{
    (void)api;
    (void)req;
    answer_text(a, 200, "success");
}

static void get_routes(struct rs_api *api, const struct rs_web_request *req,
                       struct rs_web_answer *a);

static const struct route routes[] = {
    {"GET", "/api", "this list", false, get_routes},
    {"GET", "/api/serve/applications", "details of all applications; ?api_type=, ?extended=1",
     false, get_applications},
    {"PUT", "/api/serve/applications", "deploy exactly this ServeConfigV2 (JSON)", true,
     put_applications},
    {"DELETE", "/api/serve/applications", "delete all applications", true, delete_applications},
    {"DELETE", "/api/v1/applications/{}", "delete this application", true, delete_application},
    {"POST", "/api/v1/applications/{}/deployments/{}/scale",
     "so many replicas until the next deploy: {\"target_num_replicas\": n}", true,
     scale_deployment},
    {"GET", "/api/version", "versions", false, get_version},
    {"GET", "/api/ray/version", "versions", false, get_version},
    {"GET", "/api/gcs_healthz", "success", false, get_health},
    {"GET", "/-/healthz", "success", false, get_health},
    {"GET", "/metrics", "figures for Prometheus", false, get_metrics},
};

static void get_routes(struct rs_api *api, const struct rs_web_request *req,
                       struct rs_web_answer *a)
{
    rs_auto(rs_json_decrefp) json_t *list = json_array();

    (void)api;
    (void)req;
    for (size_t i = 0; i < RS_COUNT(routes); i++)
        json_array_append_new(list, json_pack("{s:s,s:s,s:s}", "method", routes[i].method, "path",
                                              routes[i].path, "help", routes[i].help));
    answer_json(a, 200, list);
}

/* "{}" in a route stands for any one part of a path. */
static bool is_path(const char *path, const char *route)
{
    while (*route) {
        if (strncmp(route, "{}", 2) == 0 && *path && *path != '/') {
            path += strcspn(path, "/");
            route += 2;
        } else if (*path++ != *route++) {
            return false;
        }
    }
    return !*path || strcmp(path, "/") == 0;
}

static const struct route *find(const char *method, const char *path)
{
    if (strcmp(method, "HEAD") == 0)
        method = "GET";
    for (size_t i = 0; i < RS_COUNT(routes); i++)
        if (strcmp(routes[i].method, method) == 0 && is_path(path, routes[i].path))
            return &routes[i];
    return NULL;
}

/* No route: 405 if the path has routes for other methods, else 404. */
static void answer_unknown(const struct rs_web_request *req, struct rs_web_answer *a)
{
    for (size_t i = 0; i < RS_COUNT(routes); i++) {
        size_t used = strlen(a->value);

        if (!is_path(req->path, routes[i].path))
            continue;
        snprintf(a->value + used, sizeof(a->value) - used, "%s%s%s", used ? ", " : "",
                 routes[i].method, strcmp(routes[i].method, "GET") == 0 ? ", HEAD" : "");
    }
    if (!a->value[0]) {
        answer_error(a, 404, "no such path: %.*s (GET /api lists them)", PATH_SHOWN, req->path);
        return;
    }
    a->header[0] = "Allow";
    a->header[1] = a->value;
    answer_error(a, 405, "%.*s does not know the method %.20s; it knows %s", PATH_SHOWN, req->path,
                 req->method, a->value);
}

/* --- requests ------------------------------------------------------------------------------------- */

static bool changes_state(const struct rs_web_request *req)
{
    return strcmp(req->method, "GET") != 0 && strcmp(req->method, "HEAD") != 0 &&
           strcmp(req->method, "OPTIONS") != 0;
}

static bool on_header(const struct rs_web_request *req, struct rs_web_answer *a, void *arg)
{
    struct rs_api *api = arg;
    const struct rs_guard_facts facts = {
        .changes = changes_state(req),
        .peer_is_loopback = req->peer_is_loopback,
        .host = rs_web_header(req, "Host"),
        .origin = rs_web_header(req, "Origin"),
        .authorization = rs_web_header(req, "Authorization"),
    };
    char why[300];
    int refused = rs_guard_check(&api->guard, &facts, why, sizeof(why));

    if (refused) {
        if (refused == 401) {
            a->header[0] = "WWW-Authenticate";
            a->header[1] = "Bearer";
        }
        answer_error(a, refused, "%s", why);
        rs_log_warn("request refused", "status=%d why=\"%s\"", refused, why);
        return true;
    }
    if (!find(req->method, req->path)) {
        answer_unknown(req, a);
        return true;
    }
    return false;
}

static void on_request(const struct rs_web_request *req, struct rs_web_answer *a, void *arg)
{
    struct rs_api *api = arg;
    const struct route *route = find(req->method, req->path);

    route->fn(api, req, a);
    if (route->changes)
        rs_log_info("api", "method=%s path=%s status=%d", req->method, route->path, a->status);
}

static void on_refused(int status, const char *why, struct rs_web_answer *a, void *arg)
{
    (void)arg;
    answer_error(a, status, "%s", why);
}

static const struct rs_web_ops web_ops = {on_header, on_request, on_refused};

int rs_api_new(struct rs_api **ret, struct rs_loop *loop, const struct rs_api_conf *conf,
               const struct rs_api_ops *ops, void *arg, struct rs_error *err)
{
    rs_auto(rs_api_freep) struct rs_api *api = rs_alloc(sizeof(*api));
    const struct rs_web_conf web = {
        .host = conf->host,
        .port = conf->port,
        .option = "--dashboard-port",
        .body_max = conf->body_max ? conf->body_max : BODY_MAX,
        .connections = CONNECTIONS_MAX,
        .idle_s = conf->idle_s ? conf->idle_s : IDLE_S,
    };

    api->ops = ops;
    api->arg = arg;
    api->metrics = conf->metrics;
    api->token = rs_strdup(conf->token);
    api->version = rs_strdup(conf->version ? conf->version : "");
    api->commit = rs_strdup(conf->commit ? conf->commit : "");
    api->session = rs_strdup(conf->session ? conf->session : "");
    api->driver_socket = rs_strdup(conf->driver_socket);
    if (gethostname(api->hostname, sizeof(api->hostname) - 1) < 0)
        api->hostname[0] = '\0';
    if (rs_web_new(&api->web, loop, &web, &web_ops, api, err) < 0)
        return -1;
    api->guard = (struct rs_guard){
        .loopback = rs_web_is_loopback(api->web), .token = api->token, .hostname = api->hostname};
    *ret = rs_steal(api);
    return 0;
}

void rs_api_free(struct rs_api *api)
{
    if (!api)
        return;
    rs_web_free(api->web);
    free(api->token);
    free(api->version);
    free(api->commit);
    free(api->session);
    free(api->driver_socket);
    free(api);
}

uint16_t rs_api_port(const struct rs_api *api)
{
    return rs_web_port(api->web);
}
