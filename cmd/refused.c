#include "cmd/refused.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/cleanup.h"
#include "core/base/json.h"

#include <stdlib.h>
#include <string.h>

/* The value of `name` among the labels of a line that ends at `end`. */
static bool label(const char *line, const char *end, const char *name, struct rs_buf *out)
{
    const char *at = memmem(line, (size_t)(end - line), name, strlen(name));

    rs_buf_clear(out);
    if (!at)
        return false;
    for (at += strlen(name); at < end && *at != '"'; at++) {
        if (*at == '\\' && at + 1 < end)
            at++;
        rs_buf_append(out, *at == 'n' && at[-1] == '\\' ? "\n" : at, 1);
    }
    return at < end;
}

static json_t *member(json_t *of, const char *key)
{
    if (!json_is_object(json_object_get(of, key)))
        json_object_set_new(of, key, json_object());
    return json_object_get(of, key);
}

static void add_line(json_t *apps, const char *line, const char *end)
{
    rs_auto(rs_buf_fini) struct rs_buf app = {0}, cause = {0};
    const char *blank = memrchr(line, ' ', (size_t)(end - line));
    json_t *of, *refused;

    if (!blank || !label(line, end, "application=\"", &app) ||
        !label(line, end, "cause=\"", &cause))
        return;
    of = json_object_get(apps, rs_buf_text(&app));
    if (!json_is_object(of))
        return;
    refused = member(member(of, "rserve"), "refused");
    json_object_set_new(refused, rs_buf_text(&cause),
                        json_integer((json_int_t)strtod(blank, NULL) +
                                     rs_json_int(refused, rs_buf_text(&cause), 0)));
}

void rs_refused_add(json_t *details, const char *metrics)
{
    static const char family[] = "rserve_http_refused_requests_total{";

    for (const char *line = metrics, *end; (end = strchr(line, '\n')); line = end + 1) {
        if (strncmp(line, family, sizeof(family) - 1) == 0)
            add_line(json_object_get(details, "applications"), line, end);
    }
}
