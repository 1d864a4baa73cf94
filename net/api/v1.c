/* Our own part of the REST API: /api/v1. Every answer is JSON, a refusal {"error": one line}. */
#include "net/api/internal.h"

#include "core/base/clock.h"
#include "core/base/json.h"
#include "net/api/process.h"
#include "net/api/schema.h"
#include "net/api/snapshot.h"

#include <string.h>

void rs_api_v1_op(const struct rs_api_call *call, struct rs_web_answer *a)
{
    const struct rs_api *api = call->api;
    rs_auto(rs_json_decrefp) json_t *value = NULL;
    struct rs_error err = {0};
    rs_api_fn *fn;
    int r;

    memcpy(&fn, (const char *)api->ops + call->route->op, sizeof(fn));
    if (!fn) {
        rs_api_answer_error(a, 501, "%s is not known to this rserve", call->route->path);
        return;
    }
    r = fn(call, &value, &err, api->arg);
    if (r < 0)
        rs_api_answer_failure(a, &err);
    else if (r != RS_API_LATER)
        rs_api_answer_json(a, 200, value);
}

struct rs_web_later *rs_api_later(const struct rs_api_call *call)
{
    return rs_web_wait(call->req);
}

void rs_api_later_answer(struct rs_web_later *later, const json_t *value)
{
    struct rs_web_answer a = {0};

    rs_api_answer_json(&a, 200, value);
    rs_web_later_answer(later, &a);
}

void rs_api_later_fail(struct rs_web_later *later, const struct rs_error *err)
{
    struct rs_web_answer a = {0};

    rs_api_answer_failure(&a, err);
    rs_web_later_answer(later, &a);
}

/* What the route's schema picks out of `source`. */
static void answer_as(const struct rs_api_call *call, struct rs_web_answer *a, const json_t *source)
{
    rs_auto(rs_json_decrefp) json_t *value = rs_api_project(call->route->answer, source);

    rs_api_answer_json(a, 200, value);
}

void rs_api_v1_view(const struct rs_api_call *call, struct rs_web_answer *a)
{
    const struct rs_api *api = call->api;
    rs_auto(rs_json_decrefp) json_t *details = api->ops->details(true, api->arg);
    rs_auto(rs_json_decrefp) json_t *source = NULL;
    struct rs_error err = {0};

    if (!details)
        rs_api_answer_error(a, 503, "the control plane cannot tell yet; try again");
    else if (call->route->view(call, details, &source, &err) < 0)
        rs_api_answer_failure(a, &err);
    else
        answer_as(call, a, source);
}

void rs_api_v1_application(const struct rs_api_call *call, struct rs_web_answer *a)
{
    char etag[RS_ETAG_LEN];

    rs_api_v1_view(call, a);
    if (a->status == 200 && rs_api_etag(call->desired, rs_api_part(call, 0), etag))
        rs_web_answer_header(a, "ETag", "%s", etag);
}

void rs_api_v1_config(const struct rs_api_call *call, struct rs_web_answer *a)
{
    const char *known = rs_web_header(call->req, "If-None-Match");
    json_t *config = json_object_get(json_object_get(call->desired, "config"), "document");
    rs_auto(rs_json_decrefp) json_t *value = NULL;
    char etag[RS_ETAG_LEN];

    (void)rs_api_etag(call->desired, NULL, etag);
    rs_web_answer_header(a, "ETag", "%s", etag);
    if (known && rs_api_etag_named(known, etag)) {
        a->status = 304;
        return;
    }
    value = json_pack("{s:s, s:O?}", "etag", etag, "config", config);
    answer_as(call, a, value);
}

/* --- changes ------------------------------------------------------------------------------------- */

static void answer_change(const struct rs_api_call *call, struct rs_web_answer *a, const char *app,
                          const char *done, const char *nothing)
{
    bool changed = rs_api_changed(call);
    rs_auto(rs_json_decrefp) json_t *after = rs_api_desired(call->api);
    rs_auto(rs_json_decrefp) json_t *value = NULL;
    char etag[RS_ETAG_LEN];
    bool there = rs_api_etag(after, app, etag);

    if (there)
        rs_web_answer_header(a, "ETag", "%s", etag);
    value = json_pack("{s:b, s:s?, s:s}", "changed", changed, "etag", there ? etag : NULL,
                      "message", changed ? done : nothing);
    answer_as(call, a, value);
}

/* What an op of a change said, as an answer. */
static void answer_op(const struct rs_api_call *call, struct rs_web_answer *a, const char *app,
                      int failed, int status, struct rs_buf *why, const char *done,
                      const char *nothing)
{
    if (failed)
        rs_api_answer_error(a, status >= 400 ? status : 400, "%s", rs_buf_text(why));
    else
        answer_change(call, a, app, done, nothing);
    rs_buf_fini(why);
}

void rs_api_v1_put_config(const struct rs_api_call *call, struct rs_web_answer *a)
{
    const struct rs_api *api = call->api;
    struct rs_buf why = {0};
    int status = 0, r;

    if (!rs_api_may(call, NULL, a))
        return;
    r = api->ops->apply(call, &why, &status, api->arg);
    answer_op(call, a, NULL, r, status, &why, "the configuration is being deployed",
              "all of it is so already; nothing was changed");
}

void rs_api_v1_put_application(const struct rs_api_call *call, struct rs_web_answer *a)
{
    const struct rs_api *api = call->api;
    const char *app = rs_api_part(call, 0);
    struct rs_buf why = {0};
    int status = 0, r;

    if (!rs_api_may(call, app, a))
        return;
    r = api->ops->put_app(call, app, &why, &status, api->arg);
    answer_op(call, a, app, r, status, &why, "the application is being deployed",
              "it is so already; nothing was changed");
}

void rs_api_v1_delete_application(const struct rs_api_call *call, struct rs_web_answer *a)
{
    const struct rs_api *api = call->api;
    const char *app = rs_api_part(call, 0);
    struct rs_buf why = {0};
    int status = 0, r;

    if (!rs_api_may(call, app, a))
        return;
    r = api->ops->delete_app(call, app, &why, &status, api->arg);
    answer_op(call, a, app, r, status, &why, "the application is being deleted",
              "it is being deleted already");
}

/* --- figures ------------------------------------------------------------------------------------- */

static void as_families(struct rs_web_answer *a, const char *text, const char *name)
{
    rs_auto(rs_json_decrefp) json_t *value =
        json_pack("{s:f, s:o}", "time_s", rs_clock_wall(), "families", rs_api_snapshot(text, name));

    rs_api_answer_json(a, 200, value);
}

void rs_api_v1_metrics(const struct rs_api_call *call, struct rs_web_answer *a)
{
    rs_api_figures(call, a, as_families, rs_api_query(call, "name"));
}
