/* Conditions of changes: two who deploy do not overwrite each other unknowingly. */
#include "net/api/internal.h"

#include "core/base/clock.h"
#include "core/base/json.h"

#include <stdio.h>
#include <string.h>

json_t *rs_api_desired(const struct rs_api *api)
{
    json_t *desired = api->ops->desired ? api->ops->desired(api->arg) : NULL;

    return desired ? desired : json_null();
}

bool rs_api_changed(const struct rs_api_call *call)
{
    rs_auto(rs_json_decrefp) json_t *now = rs_api_desired(call->api);

    return call->failed || !json_equal(call->desired, now);
}

/* "'rserve deploy' changed it 12 s ago"; "" if nobody knows. */
static void last_change(const struct rs_api_call *call, const char *app, char *out, size_t size)
{
    const struct rs_api *api = call->api;
    char who[RS_API_WHO];
    double when;

    out[0] = '\0';
    if (api->ops->last_change && api->ops->last_change(app, who, sizeof(who), &when, api->arg) == 0)
        snprintf(out, size, "; %s changed it %.0f s ago", who, rs_clock_wall() - when);
}

bool rs_api_may(const struct rs_api_call *call, const char *app, struct rs_web_answer *a)
{
    const char *match = rs_web_header(call->req, "If-Match");
    const char *none = rs_web_header(call->req, "If-None-Match");
    char now[RS_ETAG_LEN], told[300];
    bool there = rs_api_etag(call->desired, app, now);

    if ((!match || rs_api_etag_named(match, there ? now : NULL)) &&
        (!none || !rs_api_etag_named(none, there ? now : NULL)))
        return true;
    last_change(call, app, told, sizeof(told));
    if (there)
        rs_web_answer_header(a, "ETag", "%s", now);
    rs_api_answer_error(a, 412,
                        "%s%.100s%s is not what %s %.100s expects: it is %s now%s; look at it "
                        "before you change it",
                        app ? "application '" : "the configuration", app ? app : "", app ? "'" : "",
                        match ? "If-Match:" : "If-None-Match:", match ? match : none,
                        there ? now : "not there", told);
    return false;
}
