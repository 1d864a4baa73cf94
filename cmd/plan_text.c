#include "cmd/plan_text.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/base/text.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { WIDTH_MIN = 60, NAME = 22, FIELD = 30, ERROR_LINES = 12 };

struct page {
    struct rs_buf *out;
    size_t width;
    bool color;
};

/* --- lines --------------------------------------------------------------------------------------- */

static void RS_PRINTF(3, 4) line(const struct page *p, const char *color, const char *fmt, ...)
{
    rs_auto(rs_freep) char *text = NULL;
    va_list args;

    va_start(args, fmt);
    text = rs_vasprintf(fmt, args);
    va_end(args);
    if (p->color && color)
        rs_buf_puts(p->out, color);
    rs_text_fit(p->out, text, p->width);
    if (p->color && color)
        rs_buf_puts(p->out, "\x1b[0m");
    rs_buf_puts(p->out, "\n");
}

static const struct look {
    const char *change, *mark, *color;
} looks[] = {
    {"unchanged", "=", NULL},     {"in place", "~", "\x1b[33m"}, {"new", "+", "\x1b[32m"},
    {"rolling", "!", "\x1b[35m"}, {"recreate", "!", "\x1b[31m"}, {"removed", "-", "\x1b[31m"},
    {"failed", "x", "\x1b[31m"},
};

static const struct look *look_of(const char *change)
{
    for (size_t i = 0; i < RS_COUNT(looks); i++)
        if (strcmp(looks[i].change, change) == 0)
            return &looks[i];
    return &looks[0];
}

static const char *s_of(int64_t n)
{
    return n == 1 ? "" : "s";
}

/* --- fields -------------------------------------------------------------------------------------- */

static char *value_text(const json_t *v)
{
    char *text =
        json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(6));

    return text ? text : rs_strdup("(none)");
}

static char *cut(const char *text, size_t width)
{
    struct rs_buf b = {0};

    rs_text_fit(&b, text, width);
    return rs_buf_steal(&b);
}

/* "name   old -> new", both cut so that neither pushes the other out. */
static void field_line(const struct page *p, const char *indent, const json_t *f)
{
    rs_auto(rs_freep) char *before = value_text(json_object_get(f, "old"));
    rs_auto(rs_freep) char *after = value_text(json_object_get(f, "new"));
    const char *name = rs_json_str(f, "field", "");
    size_t used = strlen(indent) + (strlen(name) > FIELD ? strlen(name) : FIELD) + 5;
    size_t room = p->width > used + 20 ? p->width - used : 20;
    size_t a = strlen(before), b = strlen(after);
    size_t half = room / 2;
    rs_auto(rs_freep) char *one = cut(before, b < half && a > half ? room - b : half);
    rs_auto(rs_freep) char *two = cut(after, a < half && b > half ? room - a : half);

    line(p, NULL, "%s%-*s %s -> %s", indent, FIELD, name, one, two);
}

static void field_lines(const struct page *p, const char *indent, const json_t *fields)
{
    const json_t *f;
    size_t i;

    json_array_foreach ((json_t *)(uintptr_t)fields, i, f)
        field_line(p, indent, f);
}

/* --- deployments --------------------------------------------------------------------------------- */

static void roll_text(struct rs_buf *out, const json_t *d)
{
    const json_t *surge = json_object_get(d, "surge");
    const json_t *replicas = json_object_get(d, "replicas");
    int64_t fits = rs_json_int(surge, "fits", 0);

    rs_buf_printf(out, ", %lld restart%s", (long long)rs_json_int(replicas, "live", 0),
                  rs_json_int(replicas, "live", 0) == 1 ? "s" : "");
    if (surge && fits > 0)
        rs_buf_printf(out, ", %lld new beside the old", (long long)fits);
    else if (surge && strcmp(rs_json_str(surge, "how", ""), "wait") == 0)
        rs_buf_puts(out, ", waits for room");
    else if (surge)
        rs_buf_puts(out, ", old ones stop first");
}

static void numbers_text(struct rs_buf *out, const json_t *d)
{
    const json_t *r = json_object_get(d, "replicas");
    int64_t before = rs_json_int(r, "before", 0), after = rs_json_int(r, "after", 0);
    const char *change = rs_json_str(d, "change", "");

    if (strcmp(change, "removed") == 0)
        rs_buf_printf(out, ", %lld replica%s stop%s", (long long)rs_json_int(r, "stops", 0),
                      s_of(rs_json_int(r, "stops", 0)), rs_json_int(r, "stops", 0) == 1 ? "s" : "");
    else if (strcmp(change, "new") == 0 || before == after)
        rs_buf_printf(out, ", %lld replica%s", (long long)after, s_of(after));
    else
        rs_buf_printf(out, ", %lld -> %lld replicas", (long long)before, (long long)after);
}

static void nodes_text(struct rs_buf *out, const json_t *nodes)
{
    const char *node;
    json_t *n;

    json_object_foreach ((json_t *)(uintptr_t)nodes, node, n)
        rs_buf_printf(out, "%s%s %lld", rs_buf_len(out) ? ", " : "", node,
                      (long long)json_integer_value(n));
}

static void deployment_lines(const struct page *p, const json_t *d)
{
    const struct look *l = look_of(rs_json_str(d, "change", ""));
    const json_t *pending = json_object_get(d, "pending"), *surge = json_object_get(d, "surge");
    rs_auto(rs_buf_fini) struct rs_buf text = {0};
    rs_auto(rs_buf_fini) struct rs_buf nodes = {0};

    numbers_text(&text, d);
    if (strcmp(l->change, "rolling") == 0 || strcmp(l->change, "recreate") == 0)
        roll_text(&text, d);
    line(p, l->color, "  %s %-*s %s%s", l->mark, NAME, rs_json_str(d, "name", ""), l->change,
         rs_buf_text(&text));
    field_lines(p, "      ", json_object_get(d, "fields"));
    if (surge && rs_json_int(surge, "fits", 0) == 0 && rs_json_str(surge, "why", NULL))
        line(p, NULL, "      no room beside the old ones: %s", rs_json_str(surge, "why", ""));
    if (rs_json_bool(d, "gap", false))
        line(p, "\x1b[31m", "      for a moment none of its replicas serves; requests wait");
    if (pending)
        line(p, "\x1b[31m", "      %lld find%s no room: %s",
             (long long)rs_json_int(pending, "replicas", 0),
             rs_json_int(pending, "replicas", 0) == 1 ? "s" : "",
             rs_json_str(pending, "why", "no node has it"));
    nodes_text(&nodes, json_object_get(d, "nodes"));
    if (json_object_size(json_object_get(d, "nodes")) > 1 && strcmp(l->change, "unchanged") != 0)
        line(p, NULL, "      on %s", rs_buf_text(&nodes));
}

/* The first and the last lines of a traceback say most. */
static void error_lines(const struct page *p, const char *text)
{
    size_t lines = 0, at = 0;

    for (const char *c = text; *c; c++)
        lines += *c == '\n' || !c[1];
    for (; *text; at++) {
        size_t n = strcspn(text, "\n");
        rs_auto(rs_freep) char *one = rs_strndup(text, n);

        if (lines <= ERROR_LINES || at < ERROR_LINES / 2 || at >= lines - ERROR_LINES / 2)
            line(p, NULL, "      %s", one);
        else if (at == ERROR_LINES / 2)
            line(p, NULL, "      ... (%zu lines)", lines - ERROR_LINES);
        text += n;
        text += *text == '\n';
    }
}

static void app_lines(const struct page *p, const json_t *app)
{
    const char *change = rs_json_str(app, "change", ""), *error = rs_json_str(app, "error", NULL);
    const char *prefix = rs_json_str(app, "route_prefix", NULL);
    const char *note = rs_json_str(app, "note", NULL);
    const json_t *d;
    size_t i;

    rs_buf_puts(p->out, "\n");
    line(p, p->color ? "\x1b[1m" : NULL, "application %s  %s%s%s", rs_json_str(app, "name", ""),
         prefix ? prefix : "(no route)", strcmp(change, "deployed") == 0 ? "" : "  ",
         strcmp(change, "deployed") == 0 ? "" : change);
    if (note)
        line(p, NULL, "    %s", note);
    json_array_foreach (json_object_get(app, "fields"), i, d)
        field_line(p, "    ", d);
    if (error) {
        line(p, "\x1b[31m", "    the deploy would fail, and what runs would go on:");
        error_lines(p, error);
    }
    json_array_foreach (json_object_get(app, "deployments"), i, d)
        deployment_lines(p, d);
}

/* --- the sum ------------------------------------------------------------------------------------- */

static void count_text(struct rs_buf *out, const json_t *summary, const char *name)
{
    int64_t n = rs_json_int(summary, name, 0);

    if (n > 0)
        rs_buf_printf(out, "%s%lld %s", rs_buf_len(out) ? ", " : "", (long long)n, name);
}

static void resource_lines(const struct page *p, const json_t *resources)
{
    const json_t *now = json_object_get(resources, "now"),
                 *peak = json_object_get(resources, "peak");
    const json_t *total = json_object_get(resources, "total");
    const char *name;
    json_t *v;

    json_object_foreach (json_object_get(resources, "peak"), name, v) {
        double most = json_number_value(v), have = rs_json_num(total, name, 0);

        if (most <= 0)
            continue;
        line(p, NULL, "%-10s %g of %g taken, %g at the peak%s", name, rs_json_num(now, name, 0),
             have, rs_json_num(peak, name, 0),
             most > have ? ": more than there is, so it goes slower" : "");
    }
}

void rs_deploy_plan_print(const json_t *plan, size_t width, bool color, struct rs_buf *out)
{
    const struct page p = {out, width < WIDTH_MIN ? WIDTH_MIN : width, color};
    const json_t *summary = json_object_get(plan, "summary"), *app;
    rs_auto(rs_buf_fini) struct rs_buf counts = {0};
    size_t i;

    json_array_foreach (json_object_get(plan, "applications"), i, app)
        app_lines(&p, app);
    for (i = 0; i < RS_COUNT(looks); i++)
        count_text(&counts, summary, looks[i].change);
    rs_buf_puts(out, "\n");
    line(&p, NULL, "Sum: %s.", rs_buf_len(&counts) ? rs_buf_text(&counts) : "nothing to do");
    line(&p, NULL, "Replicas: %lld start, %lld stop, %lld of those that serve restart.",
         (long long)rs_json_int(summary, "starts", 0), (long long)rs_json_int(summary, "stops", 0),
         (long long)rs_json_int(summary, "restarts", 0));
    resource_lines(&p, json_object_get(plan, "resources"));
    if (!rs_json_bool(plan, "fits", true))
        line(&p, "\x1b[31m", "Not all of it finds room.");
}

/* --- history ------------------------------------------------------------------------------------- */

static void time_text(double wall, char *out, size_t size)
{
    time_t t = (time_t)wall;
    struct tm tm;

    gmtime_r(&t, &tm);
    strftime(out, size, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static void revision_line(const struct page *p, const json_t *e, int64_t back_to)
{
    int64_t revision = rs_json_int(e, "revision", 0), of = rs_json_int(e, "rollback_of", 0);
    const char *import_path = rs_json_str(json_object_get(e, "config"), "import_path", "");
    char at[32], again[32] = "";

    time_text(rs_json_num(e, "time_s", 0), at, sizeof(at));
    if (of)
        snprintf(again, sizeof(again), " (%lld again)", (long long)of);
    line(p, NULL, "%8lld  %-20s  %-16.16s  %s%s%s%s", (long long)revision, at,
         rs_json_str(e, "who", "-"), import_path, again,
         rs_json_bool(e, "current", false) ? "  current" : "",
         revision == back_to ? "  <- rollback" : "");
}

void rs_history_print(const json_t *history, size_t width, struct rs_buf *out)
{
    const struct page p = {out, width < WIDTH_MIN ? WIDTH_MIN : width, false};
    const json_t *e;
    size_t i;

    line(&p, NULL, "%8s  %-20s  %-16s  %s", "REVISION", "RUNS SINCE", "BY", "CODE");
    json_array_foreach (json_object_get(history, "revisions"), i, e)
        revision_line(&p, e, rs_json_int(history, "back_to", 0));
}
