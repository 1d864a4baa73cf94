#include "net/api/internal.h"

#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/text.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { BODY_MAX = 4 * 1024 * 1024, IDLE_S = 30, CONNECTIONS_MAX = 256 };

/* --- what a request says ------------------------------------------------------------------------- */

const char *rs_api_part(const struct rs_api_call *call, unsigned n)
{
    assert(n < RS_API_PARTS && call->part[n]);
    return call->part[n];
}

const char *rs_api_query(const struct rs_api_call *call, const char *name)
{
    return rs_web_query(call->req, name);
}

int rs_api_query_int(const struct rs_api_call *call, const char *name, int64_t min, int64_t max,
                     int64_t def, int64_t *ret, struct rs_error *err)
{
    const char *text = rs_api_query(call, name);
    char *end = NULL;
    long long n;

    if (!text || !*text) {
        *ret = def;
        return 0;
    }
    errno = 0;
    n = strtoll(text, &end, 10);
    if (errno || *end || n < min || n > max || text[0] == ' ' || text[0] == '+')
        return rs_error_set(err, RS_INVALID,
                            "?%s=: expected a number from %lld to %lld, got '%.40s'", name,
                            (long long)min, (long long)max, text);
    *ret = n;
    return 0;
}

const char *rs_api_body(const struct rs_api_call *call, size_t *len)
{
    *len = call->req->len;
    return call->req->body;
}

const char *rs_api_who(const struct rs_api_call *call)
{
    return call->who;
}

static bool some_failed(const struct rs_api *api)
{
    rs_auto(rs_json_decrefp) json_t *details = api->ops->details(false, api->arg);
    json_t *app;
    const char *name;

    json_object_foreach (json_object_get(details, "applications"), name, app)
        if (strcmp(rs_json_str(app, "status", ""), "DEPLOY_FAILED") == 0)
            return true;
    return false;
}

/* "ann@host" of our own command line, "rserve/0.1.0 (ann@host)"; of others all that they say. */
static void who_is(struct rs_buf *out, const char *agent)
{
    const char *from = agent && strncmp(agent, "rserve/", 7) == 0 ? strchr(agent, '(') : NULL;
    const char *to = from ? strchr(from, ')') : NULL;
    rs_auto(rs_freep) char *name = to ? rs_strndup(from + 1, (size_t)(to - from - 1)) : NULL;

    rs_text_fit(out, name ? name : agent && *agent ? agent : "somebody", 100);
}

static void call_begin(struct rs_api_call *call, struct rs_api *api,
                       const struct rs_web_request *req)
{
    rs_auto(rs_buf_fini) struct rs_buf clean = {0};

    *call = (struct rs_api_call){
        .api = api, .req = req, .route = rs_api_route_find(req->method, req->path)};
    rs_api_route_parts(call->route, req->path, call->part);
    who_is(&clean, rs_web_header(req, "User-Agent"));
    snprintf(call->who, sizeof(call->who), "%s%s", rs_buf_text(&clean),
             req->peer_is_loopback ? "" : " from another machine");
    if (call->route->tagged || call->route->view)
        call->desired = rs_api_desired(api);
    call->failed = call->route->changes && some_failed(api);
}

static void call_end(struct rs_api_call *call)
{
    for (unsigned i = 0; i < RS_API_PARTS; i++)
        free(call->part[i]);
    json_decref(call->desired);
}

/* --- the table as an answer ----------------------------------------------------------------------- */

void rs_api_list_routes(const struct rs_api_call *call, struct rs_web_answer *a)
{
    rs_auto(rs_json_decrefp) json_t *list = json_array();

    (void)call;
    for (size_t i = 0; i < rs_api_n_routes; i++)
        json_array_append_new(list,
                              json_pack("{s:s,s:s,s:s}", "method", rs_api_routes[i].method, "path",
                                        rs_api_routes[i].path, "help", rs_api_routes[i].help));
    rs_api_answer_json(a, 200, list);
}

/* No route: 405 if the path has routes for other methods, else 404. */
static void answer_unknown(const struct rs_web_request *req, struct rs_web_answer *a)
{
    char allow[RS_WEB_HEADER_LEN];

    rs_api_route_allow(req->path, allow, sizeof(allow));
    if (allow[0] && strcmp(req->method, "OPTIONS") == 0) {
        rs_web_answer_header(a, "Allow", "%s, OPTIONS", allow);
        a->status = 204;
        return;
    }
    if (!allow[0]) {
        rs_api_answer_error(a, 404, "no such path: %.*s (GET /api lists them)", RS_API_SHOWN,
                            req->path);
        return;
    }
    rs_web_answer_header(a, "Allow", "%s", allow);
    rs_api_answer_error(a, 405, "%.*s does not know the method %.20s; it knows %s", RS_API_SHOWN,
                        req->path, req->method, allow);
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
        if (refused == 401)
            rs_web_answer_header(a, "WWW-Authenticate", "Bearer");
        rs_api_answer_error(a, refused, "%s", why);
        rs_log_warn("request refused", "status=%d why=\"%s\"", refused, why);
        return true;
    }
    if (!rs_api_route_find(req->method, req->path)) {
        answer_unknown(req, a);
        return true;
    }
    return false;
}

static void on_request(const struct rs_web_request *req, struct rs_web_answer *a, void *arg)
{
    struct rs_api_call call;

    call_begin(&call, arg, req);
    call.route->fn(&call, a);
    if (call.route->changes)
        rs_log_info("api", "method=%s path=%s status=%d", req->method, call.route->path, a->status);
    call_end(&call);
}

static void on_refused(int status, const char *why, struct rs_web_answer *a, void *arg)
{
    (void)arg;
    rs_api_answer_error(a, status, "%s", why);
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
        .listening = conf->listening,
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
