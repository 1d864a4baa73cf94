/* What Serve's tools use of Ray's dashboard: the paths, shapes and texts are Ray's. */
#include "net/api/internal.h"

#include "core/base/json.h"
#include "core/base/text.h"
#include "net/api/process.h"

#include <string.h>
#include <strings.h>

#define RAY_VERSION "2.60.0" /* whose API this is */
#define RAY_API_VERSION "4"  /* of the dashboard's endpoints */

enum { ERROR_SHOWN = 480, REPLICAS_MAX = 1000000 };

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

/* Of the configuration: what the details show besides changes by itself. */
static void put_etag(struct rs_web_answer *a, const json_t *desired)
{
    char etag[RS_ETAG_LEN];

    if (json_is_null(desired))
        return;
    (void)rs_api_etag(desired, NULL, etag);
    rs_web_answer_header(a, "ETag", "%s", etag);
}

void rs_api_get_applications(const struct rs_api_call *call, struct rs_web_answer *a)
{
    const struct rs_api *api = call->api;
    rs_auto(rs_json_decrefp) json_t *details = NULL, *some = NULL;
    const char *source = rs_api_query(call, "api_type");
    const char *extended = rs_api_query(call, "extended");

    if (source && source[0] && strcasecmp(source, "imperative") != 0 &&
        strcasecmp(source, "declarative") != 0) {
        rs_api_answer_text(a, 400, "");
        rs_buf_printf(&a->body,
                      "Invalid 'api_type' value: '%.*s'. Must be one of: imperative, declarative",
                      RS_API_SHOWN, source);
        return;
    }
    details = api->ops->details(extended && strcmp(extended, "1") == 0, api->arg);
    if (!details) {
        rs_api_answer_text(a, 503, "The controller does not answer yet.");
        return;
    }
    put_etag(a, call->desired);
    if (source && source[0])
        some = of_source(details, source);
    rs_api_answer_json(a, 200, some ? some : details);
}

static void answer_change(struct rs_web_answer *a, int r, int status, struct rs_buf *error)
{
    if (r == 0) {
        a->status = 200;
    } else {
        rs_api_answer_text(a, status >= 400 ? status : 400, "");
        rs_buf_append(&a->body, rs_buf_text(error), rs_buf_len(error));
    }
    rs_buf_fini(error);
}

void rs_api_put_applications(const struct rs_api_call *call, struct rs_web_answer *a)
{
    const struct rs_api *api = call->api;
    rs_auto(rs_json_decrefp) json_t *after = NULL;
    struct rs_buf error = {0};
    int status = 0, r;

    if (!rs_api_may(call, NULL, a))
        return;
    r = api->ops->apply(call, &error, &status, api->arg);
    answer_change(a, r, status, &error);
    if (r < 0)
        return;
    after = rs_api_desired(api);
    put_etag(a, after);
    rs_web_answer_header(a, "X-Rserve-Changed", "%s", rs_api_changed(call) ? "true" : "false");
}

void rs_api_delete_applications(const struct rs_api_call *call, struct rs_web_answer *a)
{
    const struct rs_api *api = call->api;
    struct rs_buf error = {0};
    int status = 0, r;

    if (!rs_api_may(call, NULL, a))
        return;
    r = api->ops->delete_all(call, &error, &status, api->arg);
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
    a->type = rs_api_json;
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

void rs_api_scale(const struct rs_api_call *call, struct rs_web_answer *a)
{
    const struct rs_api *api = call->api;
    struct rs_buf error = {0};
    int64_t replicas = replicas_of(call->req, &error);
    int status = 0;

    if (replicas < 0)
        answer_spaced(a, 400, "error", rs_buf_text(&error));
    else if (api->ops->scale(call, call->part[0], call->part[1], (unsigned)replicas, &error,
                             &status, api->arg) < 0)
        answer_spaced(a, status >= 400 ? status : 400, "error", rs_buf_text(&error));
    else
        answer_spaced(a, 200, "message",
                      "Scaling request received. Deployment will get scaled asynchronously.");
    rs_buf_fini(&error);
}

void rs_api_version(const struct rs_api_call *call, struct rs_web_answer *a)
{
    const struct rs_api *api = call->api;
    rs_auto(rs_json_decrefp) json_t *value = json_pack(
        "{s:s,s:s,s:s,s:s,s:s,s:s,s:s?}", "version", RAY_API_VERSION, "ray_version", RAY_VERSION,
        "ray_commit", api->commit, "session_name", api->session, "rserve_version", api->version,
        "rserve_commit", api->commit, "driver_socket", api->driver_socket);

    rs_api_answer_json(a, 200, value);
}

void rs_api_figures(const struct rs_api_call *call, struct rs_web_answer *a, rs_api_form *form,
                    const char *form_arg)
{
    const struct rs_api *api = call->api;
    rs_auto(rs_buf_fini) struct rs_buf text = {0};

    if (api->ops->metrics && api->ops->metrics(call->req, a, form, form_arg, api->arg))
        return;
    if (api->ops->collect)
        api->ops->collect(api->arg);
    if (api->metrics)
        rs_metrics_text(api->metrics, &text);
    rs_process_text(&text);
    form(a, rs_buf_text(&text), form_arg);
}

static void as_text(struct rs_web_answer *a, const char *text, const char *form_arg)
{
    (void)form_arg;
    a->status = 200;
    a->type = "text/plain; version=0.0.4; charset=utf-8";
    rs_buf_puts(&a->body, text);
}

void rs_api_metrics(const struct rs_api_call *call, struct rs_web_answer *a)
{
    rs_api_figures(call, a, as_text, NULL);
}

void rs_api_health(const struct rs_api_call *call, struct rs_web_answer *a)
{
    (void)call;
    rs_api_answer_text(a, 200, "success");
}
