/* The ops of the REST API for what a deploy would do, and for going back to what ran. */
#include "cmd/head-internal.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/config/config.h"
#include "core/config/kept.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- plans --------------------------------------------------------------------------------------- */

int rs_head_api_plan(const struct rs_api_call *call, json_t **ret, struct rs_error *err, void *arg)
{
    struct rs_head *h = arg;
    rs_auto(rs_config_freep) struct rs_config *config = NULL;
    rs_auto(rs_diags_fini) struct rs_diags diags = {0};
    uint64_t id = 0;
    size_t len;
    const char *body = rs_api_body(call, &len);

    if (rs_config_parse(&config, body, len, NULL, &diags) < 0)
        return rs_diags_to_error(&diags, err);
    if (h->app_dir && rs_config_default_app_dir(config, h->app_dir, err) < 0)
        return -1;
    if (rs_controller_plan(h->controller, rs_steal(config), rs_clock_now(), &id, err) < 0)
        return -1;
    return rs_controller_plan_result(h->controller, id, ret, err);
}

int rs_head_api_plan_result(const struct rs_api_call *call, json_t **ret, struct rs_error *err,
                            void *arg)
{
    struct rs_head *h = arg;
    const char *text = rs_api_part(call, 0);
    char *end = NULL;
    uint64_t id = strtoull(text, &end, 10);

    if (end == text || *end)
        return rs_error_set(err, RS_NOT_FOUND, "expected the number of a plan, got '%.80s'", text);
    return rs_controller_plan_result(h->controller, id, ret, err);
}

/* --- going back ---------------------------------------------------------------------------------- */

int rs_head_api_history(const struct rs_api_call *call, json_t **ret, struct rs_error *err,
                        void *arg)
{
    const struct rs_head *h = arg;
    const char *app = rs_api_part(call, 0);
    json_t *list = rs_controller_history(h->controller, app);

    if (!list)
        return rs_error_set(err, RS_NOT_FOUND,
                            "no configuration of an application '%.80s' ever ran here", app);
    *ret = list;
    return 0;
}

/* {"to": n}, {} or nothing. -1: something else. */
static int revision_of(const struct rs_api_call *call, int64_t *ret, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *body = NULL;
    size_t len;
    const char *text = rs_api_body(call, &len);
    const json_t *to;

    *ret = 0;
    if (len == 0)
        return 0;
    if (rs_json_parse(&body, text, len, "body", err) < 0)
        return -1;
    to = json_object_get(body, "to");
    if (!json_is_object(body) ||
        (to && !json_is_null(to) && (!json_is_integer(to) || json_integer_value(to) < 1)))
        return rs_error_set(err, RS_INVALID,
                            "body: to: expected the number of a revision; 'GET .../history' lists "
                            "them");
    *ret = json_is_integer(to) ? json_integer_value(to) : 0;
    return 0;
}

/* The configuration of all applications, with this one as it was. */
static int go_back(struct rs_head *h, const char *app, const json_t *entry, struct rs_error *err)
{
    const json_t *kept = json_object_get(entry, "config");
    json_t *old =
        json_array_get(json_object_get(json_object_get(kept, "document"), "applications"), 0);
    rs_auto(rs_json_decrefp) json_t *all = rs_head_with_app(h, app, old);
    struct rs_config *config = NULL;

    if (rs_config_kept(&config, all, err) < 0)
        return -1;
    if (h->http_port && (rs_config_set_host(config, h->http_host, err) < 0 ||
                         rs_config_set_port(config, h->http_port, err) < 0)) {
        rs_config_free(config);
        return -1;
    }
    return rs_controller_roll_back(h->controller, config, app, rs_json_int(entry, "revision", 0),
                                   rs_clock_now(), err);
}

/* One that a program deployed. */
static int go_back_program(struct rs_head *h, const json_t *entry, struct rs_error *err)
{
    struct rs_config *config = NULL;

    if (rs_config_kept(&config, json_object_get(entry, "config"), err) < 0)
        return -1;
    return rs_controller_put(h->controller, config, rs_clock_now(), err);
}

int rs_head_api_rollback(const struct rs_api_call *call, json_t **ret, struct rs_error *err,
                         void *arg)
{
    struct rs_head *h = arg;
    const char *app = rs_api_part(call, 0);
    const json_t *found;
    rs_auto(rs_json_decrefp) json_t *entry = NULL;
    int64_t to;

    if (revision_of(call, &to, err) < 0 ||
        rs_controller_revision(h->controller, app, to, &found, err) < 0)
        return -1;
    entry = json_deep_copy(found);
    rs_controller_who(h->controller, rs_api_who(call));
    if ((rs_json_bool(entry, "program", false) ? go_back_program(h, entry, err)
                                               : go_back(h, app, entry, err)) < 0 ||
        rs_head_keep(h, err) < 0)
        return -1;
    *ret = json_pack("{s:s, s:O}", "name", app, "revision", json_object_get(entry, "revision"));
    return 0;
}
