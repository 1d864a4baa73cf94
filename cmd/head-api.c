/* The ops of the REST API: what it asks, out of the controller; what it orders, into it. */
#include "cmd/head-internal.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/config/kept.h"
#include "net/api/process.h"

#include <stdio.h>
#include <string.h>

static json_t *api_details(bool extended, void *arg)
{
    struct rs_head *h = arg;

    return rs_controller_details(h->controller, extended, rs_clock_now());
}

/* `order` is given by who calls, until the scope ends: rs_auto(ordered) struct rs_head *order = .. */
static struct rs_head *order_of(struct rs_head *h, const struct rs_api_call *call)
{
    rs_controller_who(h->controller, rs_api_who(call));
    return h;
}

static void ordered(struct rs_head **order)
{
    rs_controller_who((*order)->controller, NULL); /* also where it was refused */
}

static bool wants_no_restart(const struct rs_api_call *call)
{
    const char *text = rs_api_query(call, "no_restart");

    return text && strcmp(text, "1") == 0;
}

/* Takes `config`. `no_restart`: refused with RS_CONFLICT where it would restart replicas. */
static int apply_from_rest(struct rs_head *h, struct rs_config *config, bool no_restart,
                           struct rs_error *err)
{
    rs_auto(rs_config_freep) struct rs_config *c = config;
    bool opens = h->later_host && !h->http_port && c->proxy_location != RS_PROXY_DISABLED;

    if (h->app_dir && rs_config_default_app_dir(c, h->app_dir, err) < 0)
        return -1;
    if (no_restart && rs_controller_check_restarts(h->controller, c, err) < 0)
        return -1;
    if (opens && rs_head_open_http(h, c, h->later_host, err) < 0)
        return -1;
    return rs_head_apply(h, rs_steal(c), err);
}

static int api_apply(const struct rs_api_call *call, struct rs_buf *error, int *http_status,
                     void *arg)
{
    struct rs_head *h = arg;
    struct rs_config *config = NULL;
    struct rs_diags diags = {0};
    struct rs_error err = {0};
    size_t len;
    const char *body = rs_api_body(call, &len);
    rs_auto(ordered) struct rs_head *order = order_of(h, call);
    int r = rs_config_parse(&config, body, len, NULL, &diags);

    if (r == 0)
        r = apply_from_rest(h, config, wants_no_restart(call), &err);
    else if (rs_diags_schema_errors(&diags))
        rs_diags_print(error, &diags);
    if (r < 0 && err.msg[0])
        rs_buf_puts(error, err.msg);
    if (r < 0 && err.code == RS_CONFLICT)
        *http_status = 409;
    rs_diags_fini(&diags);
    return r;
}

/* {"dir", "app_dir", "document"} of now, with `app` in the place of its namesake; a new reference. */
json_t *rs_head_with_app(const struct rs_head *h, const char *name, json_t *app)
{
    rs_auto(rs_json_decrefp) json_t *desired = rs_controller_desired(h->controller);
    json_t *config = json_deep_copy(json_object_get(desired, "config"));
    json_t *list, *a;
    size_t i;

    if (!json_is_object(config)) {
        json_decref(config);
        return json_pack("{s:s, s:n, s:{s:[O]}}", "dir", h->app_dir ? h->app_dir : ".", "app_dir",
                         "document", "applications", app);
    }
    list = json_object_get(json_object_get(config, "document"), "applications");
    json_array_foreach (list, i, a)
        if (strcmp(rs_json_str(a, "name", "default"), name) == 0)
            break;
    if (i < json_array_size(list))
        json_array_set(list, i, app);
    else
        json_array_append(list, app);
    return config;
}

/* Line and column are of a document that nobody has seen. */
static int without_place(struct rs_error *err)
{
    const char *at = strstr(err->msg, ":1:");
    char text[sizeof(err->msg)];

    if (!at)
        return -1;
    at += 3;
    at += strspn(at, "0123456789");
    snprintf(text, sizeof(text), "%s", *at == ':' ? at + 1 : at);
    return rs_error_set(err, err->code, "body:%.480s", text);
}

static int put_app(struct rs_head *h, const struct rs_api_call *call, const char *name,
                   struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *app = NULL, *all = NULL;
    rs_auto(ordered) struct rs_head *order = order_of(h, call);
    struct rs_config *config = NULL;
    size_t len;
    const char *body = rs_api_body(call, &len);

    if (rs_json_parse(&app, body, len, "body", err) < 0)
        return -1;
    if (!json_is_object(app))
        return rs_error_set(err, RS_INVALID,
                            "body: expected an application of a ServeConfigV2, got no object");
    if (strcmp(rs_json_str(app, "name", name), name) != 0)
        return rs_error_set(err, RS_INVALID,
                            "body: name: expected '%.80s' as in the path, got '%.80s'", name,
                            rs_json_str(app, "name", ""));
    json_object_set_new(app, "name", json_string(name));
    all = rs_head_with_app(h, name, app);
    if (rs_config_kept(&config, all, err) < 0)
        return without_place(err);
    return apply_from_rest(h, config, wants_no_restart(call), err);
}

static int api_put_app(const struct rs_api_call *call, const char *app, struct rs_buf *error,
                       int *http_status, void *arg)
{
    struct rs_error err = {0};

    if (put_app(arg, call, app, &err) == 0)
        return 0;
    *http_status = err.code == RS_SYSTEM ? 500 : err.code == RS_CONFLICT ? 409 : 400;
    rs_buf_puts(error, err.msg);
    return -1;
}

static json_t *api_desired(void *arg)
{
    const struct rs_head *h = arg;

    return rs_controller_desired(h->controller);
}

/* --- who changed what last ----------------------------------------------------------------------- */

enum { ORDERS_MAX = 1000 };

void rs_head_note_order(struct rs_head *h, const struct rs_controller_event *e)
{
    json_t *order;

    if (e->kind != RS_EVENT_DEPLOY || strcmp(e->status, "REFUSED") == 0 ||
        strcmp(e->status, "RUNS") == 0 || strcmp(e->status, "SCALE") == 0 ||
        strcmp(e->status, "REPLACE") == 0)
        return; /* nothing that is configured */
    if (!h->orders)
        h->orders = json_object();
    if (json_object_size(h->orders) >= ORDERS_MAX)
        json_object_clear(h->orders);
    order = json_pack("{s:s, s:f}", "who", e->who ? e->who : "somebody", "when", rs_clock_wall());
    json_object_set(h->orders, "", order);
    if (e->app)
        json_object_set(h->orders, e->app, order);
    else /* all of them */
        json_object_set(h->orders, "*", order);
    json_decref(order);
}

static int api_last_change(const char *app, char *who, size_t size, double *when, void *arg)
{
    const struct rs_head *h = arg;
    const json_t *order = json_object_get(h->orders, app ? app : ""), *all;

    all = app ? json_object_get(h->orders, "*") : NULL;
    if (all && (!order || rs_json_num(all, "when", 0) > rs_json_num(order, "when", 0)))
        order = all;
    if (!order)
        return -1;
    snprintf(who, size, "%s", rs_json_str(order, "who", ""));
    *when = rs_json_num(order, "when", 0);
    return 0;
}

static int api_delete_all(const struct rs_api_call *call, struct rs_buf *error, int *http_status,
                          void *arg)
{
    rs_auto(ordered) struct rs_head *order = order_of(arg, call);

    (void)error;
    (void)http_status;
    rs_head_delete_all(order);
    return 0;
}

static int api_delete_app(const struct rs_api_call *call, const char *app, struct rs_buf *error,
                          int *http_status, void *arg)
{
    rs_auto(ordered) struct rs_head *order = order_of(arg, call);

    if (rs_head_delete(order, app))
        return 0;
    *http_status = 404;
    rs_buf_printf(error, "there is no application '%s'", app);
    return -1;
}

static int api_scale(const struct rs_api_call *call, const char *app, const char *deployment,
                     unsigned replicas, struct rs_buf *error, int *http_status, void *arg)
{
    rs_auto(ordered) struct rs_head *h = order_of(arg, call);
    struct rs_error err = {0};

    if (rs_controller_scale(h->controller, app, deployment, replicas, rs_clock_now(), &err) == 0 &&
        rs_head_keep(h, &err) == 0)
        return 0;
    *http_status = err.code == RS_NOT_FOUND ? 404 : err.code == RS_SYSTEM ? 500 : 412;
    rs_buf_puts(error, err.msg);
    return -1;
}

static void api_collect(void *arg)
{
    struct rs_head *h = arg;
    rs_auto(rs_json_decrefp) json_t *details = NULL;

    if (!h->has_gauges)
        return;
    details = rs_controller_details(h->controller, false, rs_clock_now());
    rs_gauges_update(&h->gauges, details);
}

static int api_events(const struct rs_api_call *call, json_t **ret, struct rs_error *err, void *arg)
{
    struct rs_head *h = arg;

    return rs_happened_ask(h->happened, call, ret, err);
}

static int why(struct rs_head *h, const struct rs_controller_subject *of, json_t **ret,
               struct rs_error *err)
{
    return rs_controller_why(h->controller, of, rs_clock_now(), ret, err);
}

static int api_why(const struct rs_api_call *call, json_t **ret, struct rs_error *err, void *arg)
{
    const struct rs_controller_subject of = {
        .app = rs_api_query(call, "app"),
        .deployment = rs_api_query(call, "deployment"),
        .replica = rs_api_query(call, "replica"),
    };

    return why(arg, &of, ret, err);
}

static int api_why_app(const struct rs_api_call *call, json_t **ret, struct rs_error *err,
                       void *arg)
{
    return why(arg, &(struct rs_controller_subject){.app = rs_api_part(call, 0)}, ret, err);
}

static int api_why_deployment(const struct rs_api_call *call, json_t **ret, struct rs_error *err,
                              void *arg)
{
    const struct rs_controller_subject of = {.app = rs_api_part(call, 0),
                                             .deployment = rs_api_part(call, 1)};

    return why(arg, &of, ret, err);
}

static int api_replace(const struct rs_api_call *call, json_t **ret, struct rs_error *err,
                       void *arg)
{
    rs_auto(ordered) struct rs_head *h = order_of(arg, call);

    if (rs_controller_replace(h->controller, rs_api_part(call, 0), err) < 0)
        return -1;
    *ret = json_pack("{s:s}", "message",
                     "another one starts; then this one finishes what it has and goes");
    return 0;
}

static int api_logs(const struct rs_api_call *call, json_t **ret, struct rs_error *err, void *arg)
{
    struct rs_head *h = arg;

    (void)ret;
    return rs_head_logs_asked(h->logs, call, err);
}

static bool api_metrics(const struct rs_web_request *req, struct rs_web_answer *a,
                        rs_api_form *form, const char *form_arg, void *arg)
{
    struct rs_head *h = arg;

    if (!h->far_metrics)
        return false;
    rs_far_metrics_get(h->far_metrics, req, a, form, form_arg);
    return true;
}

static int ask_for_metrics(uint64_t number, void *arg)
{
    struct rs_head *h = arg;
    rs_auto(rs_json_decrefp) json_t *ask = json_object();
    struct rs_error err = {0};

    return rs_head_tell(h, h->node_id, RS_MSG_READ_METRICS, number, ask, &err);
}

/* The node's figures, and those of the cluster, which are here. */
static void complete_metrics(struct rs_buf *out, const char *text, void *arg)
{
    struct rs_head *h = arg;

    api_collect(h);
    rs_metrics_text(h->metrics, out);
    if (text)
        rs_buf_puts(out, text);
    else
        rs_process_text(out);
}

const struct rs_far_metrics_ops rs_head_far_metrics_ops = {ask_for_metrics, complete_metrics};

static int roll_of(const struct rs_api_call *call, enum rs_controller_roll *ret,
                   struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *body = NULL;
    const char *action;
    size_t len;
    const char *text = rs_api_body(call, &len);

    if (rs_json_parse(&body, text, len, "body", err) < 0)
        return -1;
    action = rs_json_str(body, "action", "");
    if (strcmp(action, "resume") != 0 && strcmp(action, "abort") != 0)
        return rs_error_set(err, RS_INVALID,
                            "body: action: expected \"resume\" or \"abort\", got \"%.40s\"",
                            action);
    *ret = *action == 'r' ? RS_CONTROLLER_RESUME : RS_CONTROLLER_ABORT;
    return 0;
}

static int roll(struct rs_head *h, const struct rs_api_call *call, const char *deployment,
                json_t **ret, struct rs_error *err)
{
    enum rs_controller_roll order = RS_CONTROLLER_RESUME;
    int n;

    if (roll_of(call, &order, err) < 0)
        return -1;
    rs_controller_who(h->controller, rs_api_who(call));
    n = rs_controller_roll(h->controller, rs_api_part(call, 0), deployment, order, rs_clock_now(),
                           err);
    if (n < 0 || rs_head_keep(h, err) < 0)
        return -1;
    *ret = json_pack("{s:s}", "message",
                     order == RS_CONTROLLER_RESUME ? "the rollout goes on"
                                                   : "the rollout goes back to the old version");
    return 0;
}

static int api_roll_app(const struct rs_api_call *call, json_t **ret, struct rs_error *err,
                        void *arg)
{
    return roll(arg, call, NULL, ret, err);
}

static int api_roll_deployment(const struct rs_api_call *call, json_t **ret, struct rs_error *err,
                               void *arg)
{
    return roll(arg, call, rs_api_part(call, 1), ret, err);
}

const struct rs_api_ops rs_head_api_ops = {
    .logs = api_logs,
    .replace = api_replace,
    .details = api_details,
    .apply = api_apply,
    .delete_all = api_delete_all,
    .delete_app = api_delete_app,
    .put_app = api_put_app,
    .desired = api_desired,
    .last_change = api_last_change,
    .scale = api_scale,
    .collect = api_collect,
    .events = api_events,
    .why = api_why,
    .why_app = api_why_app,
    .why_deployment = api_why_deployment,
    .metrics = api_metrics,
    .plan = rs_head_api_plan,
    .plan_result = rs_head_api_plan_result,
    .history = rs_head_api_history,
    .rollback = rs_head_api_rollback,
    .roll_app = api_roll_app,
    .roll_deployment = api_roll_deployment,
};
