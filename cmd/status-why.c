#include "cmd/status-why.h"

#include "core/base/json.h"
#include "core/base/text.h"

#include <string.h>

enum { WHAT = 9, LEFT = 2 }; /* the column of what a reason is about */

static const char *color_of(const char *weight)
{
    return strcmp(weight, "bad") == 0 ? "\x1b[31m" : strcmp(weight, "waits") == 0 ? "\x1b[33m" : "";
}

/* `text` wrapped, its first line behind what the line begins with. */
static void put_behind(struct rs_buf *out, const char *text, size_t indent, size_t width)
{
    rs_auto(rs_buf_fini) struct rs_buf lines = {0};

    rs_text_wrap(&lines, text, indent, width);
    if (rs_buf_len(&lines) > indent)
        rs_buf_puts(out, rs_buf_text(&lines) + indent);
    else
        rs_buf_puts(out, "\n");
}

static void put_reason(const json_t *r, const struct rs_why_style *style, struct rs_buf *out)
{
    const json_t *lines = json_object_get(r, "text"), *line;
    const char *what = rs_json_str(r, "what", "?"), *next = rs_json_str(r, "next", NULL);
    const char *color = style->color ? color_of(rs_json_str(r, "weight", "")) : "";
    size_t at = LEFT + WHAT + 1, i;

    rs_buf_printf(out, "%*s%s", LEFT, "", color);
    rs_text_pad(out, what, WHAT);
    rs_buf_printf(out, "%s ", *color ? "\x1b[0m" : "");
    json_array_foreach (lines, i, line) {
        const char *text = json_is_string(line) ? json_string_value(line) : "";

        if (i == 0)
            put_behind(out, text, at, style->width);
        else
            rs_text_wrap(out, text, at + 2, style->width);
    }
    if (!json_array_size(lines))
        rs_buf_puts(out, "\n");
    if (!next)
        return;
    rs_buf_printf(out, "%*s> ", (int)at, "");
    put_behind(out, next, at + 2, style->width);
}

static void put_reasons(const json_t *list, const struct rs_why_style *style, struct rs_buf *out)
{
    const json_t *r;
    size_t i;

    json_array_foreach (list, i, r)
        put_reason(r, style, out);
}

static void put_title(struct rs_buf *out, const char *text, const struct rs_why_style *style)
{
    rs_text_fit(out, text, style->width);
    rs_buf_puts(out, "\n");
}

static void put_app(const char *name, const json_t *app, const struct rs_why_style *style,
                    struct rs_buf *out)
{
    rs_auto(rs_buf_fini) struct rs_buf title = {0};
    const char *deployment;
    json_t *d;

    rs_buf_printf(&title, "%s is %s", name, rs_json_str(app, "status", "?"));
    put_title(out, rs_buf_text(&title), style);
    put_reasons(json_object_get(app, "reasons"), style, out);
    json_object_foreach (json_object_get(app, "deployments"), deployment, d) {
        rs_buf_clear(&title);
        rs_buf_printf(&title, "%s#%s is %s: %lld of %lld run", name, deployment,
                      rs_json_str(d, "status", "?"), (long long)rs_json_int(d, "running", 0),
                      (long long)rs_json_int(d, "wanted", 0));
        put_title(out, rs_buf_text(&title), style);
        put_reasons(json_object_get(d, "reasons"), style, out);
    }
}

void rs_status_why(const json_t *answer, const struct rs_why_style *style, struct rs_buf *out)
{
    json_t *apps = json_object_get(answer, "applications"), *app;
    const char *name;

    json_object_foreach (apps, name, app)
        put_app(name, app, style, out);
    if (!json_object_size(apps))
        rs_buf_puts(out, "no applications are deployed\n");
}
