/* The ops of the REST API: what it asks, out of the controller; what it orders, into it. */
#include "cmd/head-internal.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/config/config.h"

static json_t *api_details(bool extended, void *arg)
{
    struct rs_head *h = arg;

    return rs_controller_details(h->controller, extended, rs_clock_now());
}

/* Takes `config`. */
static int apply_from_rest(struct rs_head *h, struct rs_config *config, struct rs_error *err)
{
    rs_auto(rs_config_freep) struct rs_config *c = config;
    bool opens = h->later_host && !h->http_port && c->proxy_location != RS_PROXY_DISABLED;

    if (h->app_dir && rs_config_default_app_dir(c, h->app_dir, err) < 0)
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
    int r = rs_config_parse(&config, body, len, NULL, &diags);

    (void)http_status;
    rs_controller_who(h->controller, rs_api_who(call));
    if (r == 0)
        r = apply_from_rest(h, config, &err);
    else if (rs_diags_schema_errors(&diags))
        rs_diags_print(error, &diags);
    if (r < 0 && err.msg[0])
        rs_buf_puts(error, err.msg);
    rs_diags_fini(&diags);
    return r;
}

static int api_delete_all(const struct rs_api_call *call, struct rs_buf *error, int *http_status,
                          void *arg)
{
    struct rs_head *h = arg;

    (void)error;
    (void)http_status;
    rs_controller_who(h->controller, rs_api_who(call));
    rs_head_delete_all(h);
    return 0;
}

static int api_delete_app(const struct rs_api_call *call, const char *app, struct rs_buf *error,
                          int *http_status, void *arg)
{
    struct rs_head *h = arg;

    rs_controller_who(h->controller, rs_api_who(call));
    if (rs_head_delete(arg, app))
        return 0;
    *http_status = 404;
    rs_buf_printf(error, "there is no application '%s'", app);
    return -1;
}

static int api_scale(const struct rs_api_call *call, const char *app, const char *deployment,
                     unsigned replicas, struct rs_buf *error, int *http_status, void *arg)
{
    struct rs_head *h = arg;
    struct rs_error err = {0};

    rs_controller_who(h->controller, rs_api_who(call));
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
    const struct rs_head *h = arg;

    return rs_happened_ask(h->happened, call, ret, err);
}

const struct rs_api_ops rs_head_api_ops = {
    .details = api_details,
    .apply = api_apply,
    .delete_all = api_delete_all,
    .delete_app = api_delete_app,
    .scale = api_scale,
    .collect = api_collect,
    .events = api_events,
};
