/* How progress is written: lines for people, JSON for programs, the block for terminals. */
#include "cmd/progress-internal.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/text.h"

#include <string.h>

#define GREEN "\x1b[32m"
#define RED "\x1b[31m"
#define YELLOW "\x1b[33m"

enum { NAME_MAX = 40, LINE_MAX_WIDTH = 2000 };

static const char *text_of(const char *text)
{
    return text ? text : "";
}

/* --- tracebacks ------------------------------------------------------------------------------------ */

static const char traceback_head[] = "Traceback (most recent call last):";

bool rs_progress_has_traceback(const char *message)
{
    return strstr(message, traceback_head) != NULL;
}

/* A frame that the user did not write and cannot change. */
static bool is_foreign_frame(const char *line, size_t n)
{
    static const char *const marks[] = {".zip/rserve/", ".zip/ray/", "<frozen importlib",
                                        "/importlib/__init__.py"};
    const char *path = line + strlen("  File \"");
    size_t len = 0;

    if (n < strlen("  File \"") || strncmp(line, "  File \"", strlen("  File \"")) != 0)
        return false;
    while (path + len < line + n && path[len] != '"')
        len++;
    for (size_t i = 0; i < RS_COUNT(marks); i++)
        if (memmem(path, len, marks[i], strlen(marks[i])))
            return true;
    return false;
}

/* What Python said: the traceback, or what follows "... failed with exception:". NULL: nothing. */
static const char *find_details(const char *message)
{
    const char *traceback = strstr(message, traceback_head);
    size_t n = strcspn(message, "\n");

    if (traceback)
        return traceback;
    return n > 0 && message[n - 1] == ':' && message[n] && message[n + 1] ? message + n + 1 : NULL;
}

void rs_progress_traceback(struct rs_buf *out, const char *message)
{
    const char *at = find_details(message);
    bool skipping = false;

    if (at && !at[strcspn(at, "\n")])
        return; /* one line: the summary has it */

    while (at && *at) {
        size_t n = strcspn(at, "\n");

        if (is_foreign_frame(at, n))
            skipping = true;
        else if (strncmp(at, "    ", 4) != 0)
            skipping = false;
        if (!skipping) {
            rs_buf_append(out, at, n);
            rs_buf_puts(out, "\n");
        }
        at += n + (at[n] == '\n');
    }
    while (rs_buf_len(out) > 1 && strcmp(rs_buf_text(out) + rs_buf_len(out) - 2, "\n\n") == 0)
        out->data[--out->end] = '\0';
}

/* The last line that begins a text of its own: "RuntimeError: no". */
static const char *last_line(const char *text, size_t *n)
{
    const char *best = text;

    *n = 0;
    while (*text) {
        size_t len = strcspn(text, "\n");

        if (len > 0 && text[0] != ' ') {
            best = text;
            *n = len;
        }
        text += len + (text[len] == '\n');
    }
    return best;
}

void rs_progress_oneline(struct rs_buf *out, const char *message)
{
    const char *details = find_details(message), *last = message;
    size_t first = strcspn(message, "\n"), n = 0;
    rs_auto(rs_freep) char *line = NULL;

    if (details)
        last = last_line(details, &n);
    if (details == message)
        first = 0;
    while (first > 0 && strchr(": .", message[first - 1]))
        first--;
    if (n > 0 && first > 0)
        line = rs_asprintf("%.*s: %.*s", (int)first, message, (int)n, last);
    else
        line = n > 0 ? rs_strndup(last, n) : rs_strndup(message, first);
    rs_text_fit(out, line, LINE_MAX_WIDTH);
}

/* --- lines ----------------------------------------------------------------------------------------- */

static void paint(const struct rs_progress *p, struct rs_buf *out, const char *color,
                  const char *text)
{
    rs_buf_puts(out, p->conf.color ? color : "");
    rs_buf_puts(out, text);
    rs_buf_puts(out, p->conf.color ? "\x1b[0m" : "");
}

static void put_json(const struct rs_progress *p, struct rs_buf *out, const char *event,
                     json_t *fields)
{
    rs_auto(rs_json_decrefp) json_t *line = json_pack("{s:s,s:I}", "event", event, "elapsed_ms",
                                                      (json_int_t)((p->now - p->begun) / RS_MS));
    rs_auto(rs_freep) char *text = NULL;

    json_object_update(line, fields);
    json_decref(fields);
    text = rs_json_dump(line);
    rs_buf_printf(out, "%s\n", text);
}

/* Text of others as JSON, made UTF-8 if it is not. */
static json_t *json_of(const char *text)
{
    json_t *value = json_string(text);

    if (!value) {
        struct rs_buf clean = {0};

        rs_text_fit(&clean, text, SIZE_MAX);
        value = json_string(rs_buf_text(&clean));
        rs_buf_fini(&clean);
    }
    return value;
}

void rs_progress_say_app(const struct rs_progress *p, struct rs_buf *out,
                         const struct rs_progress_app *a)
{
    if (p->conf.json) {
        put_json(p, out, "application",
                 json_pack("{s:o,s:o,s:o}", "application", json_of(a->name), "status",
                           json_of(a->status), "message", json_of(text_of(a->message))));
        return;
    }
    rs_text_fit(out, a->name, NAME_MAX);
    rs_buf_printf(out, ": %s", a->status);
    if (rs_progress_is_busy(a->status) && text_of(a->message)[0]) {
        rs_buf_puts(out, ": ");
        rs_progress_oneline(out, a->message);
    }
    rs_buf_puts(out, "\n");
}

void rs_progress_say_gone(const struct rs_progress *p, struct rs_buf *out, const char *app)
{
    if (p->conf.json) {
        put_json(p, out, "deleted", json_pack("{s:o}", "application", json_of(app)));
        return;
    }
    rs_text_fit(out, app, NAME_MAX);
    rs_buf_puts(out, ": deleted\n");
}

void rs_progress_say_deployment(const struct rs_progress *p, struct rs_buf *out, const char *app,
                                const struct rs_progress_deployment *d)
{
    if (p->conf.json) {
        put_json(p, out, "deployment",
                 json_pack("{s:o,s:o,s:o,s:i,s:i,s:o}", "application", json_of(app), "deployment",
                           json_of(d->name), "status", json_of(text_of(d->status)), "running",
                           d->running, "target", d->target, "message",
                           json_of(text_of(d->message))));
        return;
    }
    rs_text_fit(out, app, NAME_MAX);
    rs_buf_puts(out, ": ");
    rs_text_fit(out, d->name, NAME_MAX);
    rs_buf_printf(out, " %d/%d replicas", d->running, d->target);
    if (d->running != d->target || p->conf.verbose)
        rs_buf_printf(out, ", %s", text_of(d->status));
    if (text_of(d->message)[0]) {
        rs_buf_puts(out, ": ");
        rs_progress_oneline(out, d->message);
    }
    rs_buf_puts(out, "\n");
}

static size_t replicas_of(const struct rs_progress_app *a)
{
    size_t n = 0;

    for (size_t i = 0; i < a->n_deployments; i++)
        n += (size_t)a->deployments[i].running;
    return n;
}

void rs_progress_say_ready(const struct rs_progress *p, struct rs_buf *out,
                           const struct rs_progress_app *a, int64_t took)
{
    rs_auto(rs_freep) char *url = NULL;
    size_t replicas = replicas_of(a);

    url = a->route_prefix && p->url[0] ? rs_asprintf("%s%s", p->url, a->route_prefix)
                                       : rs_strdup("(not on HTTP)");
    if (p->conf.json) {
        put_json(p, out, "ready",
                 json_pack("{s:o,s:o,s:I,s:I,s:I}", "application", json_of(a->name), "url",
                           json_of(url), "deployments", (json_int_t)a->n_deployments, "replicas",
                           (json_int_t)replicas, "took_ms", (json_int_t)(took / RS_MS)));
        return;
    }
    paint(p, out, GREEN, "ready:");
    rs_buf_puts(out, " ");
    rs_text_fit(out, a->name, NAME_MAX);
    rs_buf_printf(out, "  %s  %zu deployment%s, %zu replica%s, %.2f s\n", url, a->n_deployments,
                  a->n_deployments == 1 ? "" : "s", replicas, replicas == 1 ? "" : "s",
                  (double)took / (double)RS_SEC);
}

/* The user's own lines come before the line that says what became of them. */
void rs_progress_say_failed(const struct rs_progress *p, struct rs_buf *out, const char *app,
                            const char *deployment, const char *status, const char *message)
{
    if (p->conf.json) {
        put_json(p, out, "failed",
                 json_pack("{s:o,s:o,s:o,s:o}", "application", json_of(app), "deployment",
                           deployment ? json_of(deployment) : json_null(), "status",
                           json_of(status), "message", json_of(message)));
        return;
    }
    rs_progress_traceback(out, message);
    paint(p, out, RED, strcmp(status, "UNHEALTHY") == 0 ? "unhealthy:" : "failed:");
    rs_buf_puts(out, " ");
    rs_text_fit(out, app, NAME_MAX);
    if (deployment) {
        rs_buf_puts(out, "#");
        rs_text_fit(out, deployment, NAME_MAX);
    }
    if (message[0]) {
        rs_buf_puts(out, ": ");
        rs_progress_oneline(out, message);
    }
    rs_buf_puts(out, "\n");
}

void rs_progress_say_note(const struct rs_progress *p, struct rs_buf *out, const char *text)
{
    if (p->conf.json) {
        put_json(p, out, "note", json_pack("{s:o}", "message", json_of(text)));
        return;
    }
    rs_buf_puts(out, text);
    if (text[strlen(text) - 1] != '\n')
        rs_buf_puts(out, "\n");
}

/* --- the block ------------------------------------------------------------------------------------- */

/* A line of at most the terminal's width less one, so that no terminal wraps it. */
static void put_line(const struct rs_progress *p, struct rs_buf *out, const char *color,
                     const struct rs_buf *line)
{
    size_t room = p->conf.width > 1 ? p->conf.width - 1 : 1;

    if (color && p->conf.color)
        rs_buf_puts(out, color);
    rs_text_fit(out, rs_buf_text(line), room);
    rs_buf_puts(out, color && p->conf.color ? "\x1b[0m\n" : "\n");
}

static size_t draw_deployment(const struct rs_progress *p, const struct rs_progress_deployment *d,
                              size_t name_width, struct rs_buf *out)
{
    rs_auto(rs_buf_fini) struct rs_buf line = {0};
    bool whole = d->running == d->target, failed = rs_progress_is_failed(text_of(d->status));

    rs_buf_puts(&line, "  ");
    rs_text_pad(&line, d->name, name_width);
    rs_buf_printf(&line, "  %d/%d replicas", d->running, d->target);
    if (text_of(d->message)[0] && !whole) {
        rs_buf_puts(&line, "  ");
        rs_progress_oneline(&line, d->message);
    }
    put_line(p, out, failed ? RED : whole ? GREEN : NULL, &line);
    return 1;
}

static size_t name_width(const struct rs_progress_app *a)
{
    size_t width = 8;

    for (size_t i = 0; i < a->n_deployments; i++) {
        size_t n = rs_text_width(a->deployments[i].name, strlen(a->deployments[i].name));

        width = n > width ? n : width;
    }
    return width > NAME_MAX ? NAME_MAX : width;
}

static size_t draw_app(const struct rs_progress *p, const struct rs_progress_app *a, size_t room,
                       struct rs_buf *out)
{
    const struct app *known = rs_map_get(&p->apps, a->name);
    rs_auto(rs_buf_fini) struct rs_buf line = {0};
    size_t width = name_width(a), lines = 1, left = a->n_deployments;

    rs_text_fit(&line, a->name, NAME_MAX);
    if (a->route_prefix)
        rs_buf_printf(&line, "  %s", a->route_prefix);
    rs_buf_printf(&line, "  %s  %.1f s", text_of(a->status),
                  (double)(p->now - known->begun) / (double)RS_SEC);
    if (text_of(a->message)[0]) {
        rs_buf_puts(&line, "  ");
        rs_progress_oneline(&line, a->message);
    }
    put_line(p, out, YELLOW, &line);
    for (size_t i = 0; i < a->n_deployments && (lines + 1 < room || left == 1); i++, left--)
        lines += draw_deployment(p, &a->deployments[i], width, out);
    if (left == 0)
        return lines;
    rs_buf_clear(&line);
    rs_buf_printf(&line, "  ... and %zu more", left);
    put_line(p, out, NULL, &line);
    return lines + 1;
}

size_t rs_progress_draw(const struct rs_progress *p, const struct rs_progress_snapshot *s,
                        struct rs_buf *out)
{
    size_t lines = 0, room = p->conf.height > 3 ? p->conf.height - 1 : 2;

    /* a block taller than the screen could not be erased */
    for (size_t i = 0; i < s->n_apps && lines + 1 < room; i++)
        if (rs_progress_is_busy(text_of(s->apps[i].status)))
            lines += draw_app(p, &s->apps[i], room - lines, out);
    return lines;
}
