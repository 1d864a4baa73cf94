/* Our own part of the REST API: /api/v1. Every answer is JSON, a refusal {"error": one line}. */
#include "net/api/internal.h"

#include "core/base/json.h"

#include <string.h>

void rs_api_v1_op(const struct rs_api_call *call, struct rs_web_answer *a)
{
    const struct rs_api *api = call->api;
    rs_auto(rs_json_decrefp) json_t *value = NULL;
    struct rs_error err = {0};
    rs_api_fn *fn;

    memcpy(&fn, (const char *)api->ops + call->route->op, sizeof(fn));
    if (!fn)
        rs_api_answer_error(a, 501, "%s is not known to this rserve", call->route->path);
    else if (fn(call, &value, &err, api->arg) < 0)
        rs_api_answer_failure(a, &err);
    else
        rs_api_answer_json(a, 200, value);
}

void rs_api_v1_delete_application(const struct rs_api_call *call, struct rs_web_answer *a)
{
    const struct rs_api *api = call->api;
    rs_auto(rs_buf_fini) struct rs_buf error = {0};
    int status = 0;

    if (api->ops->delete_app(call, call->part[0], &error, &status, api->arg) == 0)
        a->status = 200;
    else
        rs_api_answer_error(a, status >= 400 ? status : 400, "%s", rs_buf_text(&error));
}
