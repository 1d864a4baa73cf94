#include "cmd/status-events.h"

#include "cmd/status.h"
#include "cmd/verb.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/text.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    AGE = 9,
    KIND = 10,
    OBJECT_MIN = 12,
    OBJECT_MAX = 30,
    OBJECT_FOLLOWED = 24,
    MESSAGE_MIN = 20,
    MESSAGE_LINES = 4
};
enum { WAIT_S = 20, PAUSE_MS = 1000, FIRST = 100 };

/* --- who it is about ----------------------------------------------------------------------------- */

void rs_status_subject_parse(struct rs_status_subject *ret, const char *text)
{
    char **const parts[] = {&ret->app, &ret->deployment, &ret->replica};

    *ret = (struct rs_status_subject){0};
    for (size_t i = 0; text && *text && i < RS_COUNT(parts); i++) {
        size_t n = i + 1 < RS_COUNT(parts) ? strcspn(text, "#") : strlen(text);

        if (n > 0)
            *parts[i] = rs_strndup(text, n);
        text += n;
        text += *text == '#';
    }
}

void rs_status_subject_fini(struct rs_status_subject *s)
{
    free(s->app);
    free(s->deployment);
    free(s->replica);
    *s = (struct rs_status_subject){0};
}

/* --- lines --------------------------------------------------------------------------------------- */

static void object_of(struct rs_buf *out, const json_t *e)
{
    const char *app = rs_json_str(e, "app", NULL), *deployment = rs_json_str(e, "deployment", NULL),
               *replica = rs_json_str(e, "replica", NULL), *node = rs_json_str(e, "node", NULL);

    rs_buf_clear(out);
    if (app)
        rs_buf_printf(out, "%s%s%s%s%s", app, deployment ? "#" : "", deployment ? deployment : "",
                      replica && deployment ? "#" : "", replica && deployment ? replica : "");
    else if (node)
        rs_buf_printf(out, "node %s", node);
    else
        rs_buf_puts(out, "-");
}

/* Of a text of several lines the first and the last: what it is, and the exception. */
static void put_text(struct rs_buf *out, const char *text)
{
    const char *nl = strchr(text, '\n'), *last = strrchr(text, '\n');

    if (!nl)
        rs_buf_puts(out, text);
    else if (strncmp(text, "Traceback", 9) == 0)
        rs_buf_puts(out, last + 1);
    else
        rs_buf_printf(out, "%.*s %s%s", (int)(nl - text), text, nl != last ? ".. " : "", last + 1);
}

/* "RUNNING -> STOPPED: its process was killed by SIGKILL (node worker-2)" */
static void message_of(struct rs_buf *out, const json_t *e)
{
    const char *before = rs_json_str(e, "before", ""), *status = rs_json_str(e, "status", ""),
               *after = rs_json_str(e, "after", ""), *text = rs_json_str(e, "text", ""),
               *cause = rs_json_str(e, "cause", ""), *who = rs_json_str(e, "who", ""),
               *node = rs_json_str(e, "node", "");
    bool of_app = rs_json_str(e, "app", NULL) != NULL;

    if (*after)
        rs_buf_printf(out, "%s%s%s%s%s", status, *status ? " " : "", before, *before ? " -> " : "",
                      after);
    else
        rs_buf_printf(out, "%s%s%s", before, *before ? " -> " : "", status);
    if (*cause && !*text && strcmp(cause, "UNSPECIFIED") != 0)
        rs_buf_printf(out, " (%s)", cause);
    if (*text && (of_app || strcmp(text, node) != 0))
        rs_buf_puts(out, rs_buf_len(out) ? ": " : "");
    if (*text && (of_app || strcmp(text, node) != 0))
        put_text(out, text);
    if (*node && of_app)
        rs_buf_printf(out, " (node %s)", node);
    if (*who && strncmp(who, "node ", 5) != 0)
        rs_buf_printf(out, ", by %s", who);
}

static void age_of(char *out, size_t size, const json_t *e, double now)
{
    double last = rs_json_num(e, "last_s", 0);
    int64_t count = rs_json_int(e, "count", 1);
    size_t n;

    if (now < 0) {
        time_t at = last > 0 && last < 1e11 ? (time_t)last : 0;
        struct tm tm;

        localtime_r(&at, &tm);
        strftime(out, size, "%H:%M:%S", &tm);
        return;
    }
    rs_status_age_short(out, size, now - last);
    n = strlen(out);
    if (count > 1)
        snprintf(out + n, size - n, " x%lld", (long long)count);
}

/* Broken into lines of the width of its column; a long one loses its middle. */
static void put_message(struct rs_buf *out, const char *text, size_t indent, size_t width)
{
    struct rs_buf lines = {0};
    const char *at;
    size_t n = 0, total = 0;

    rs_text_wrap(&lines, text, indent, width);
    for (at = rs_buf_text(&lines); *at; at++)
        total += *at == '\n';
    at = rs_buf_text(&lines);
    for (n = 0; n < total; n++) {
        size_t len = strcspn(at, "\n");

        /* The first line stands behind the other columns. */
        if (n == 0)
            rs_buf_printf(out, "%.*s\n", (int)(len - indent), at + indent);
        else if (total <= MESSAGE_LINES || n == 1 || n + 2 >= total)
            rs_buf_printf(out, "%.*s\n", (int)len, at);
        else if (n == 2)
            rs_buf_printf(out, "%*s...\n", (int)indent, "");
        at += len + 1;
    }
    if (total == 0)
        rs_buf_puts(out, "\n");
    rs_buf_fini(&lines);
}

static void put_event(const json_t *e, const struct rs_events_style *style, size_t object_width,
                      struct rs_buf *out)
{
    rs_auto(rs_buf_fini) struct rs_buf object = {0}, message = {0};
    size_t indent = AGE + 1 + KIND + 1 + object_width + 1;
    char age[32];

    object_of(&object, e);
    message_of(&message, e);
    age_of(age, sizeof(age), e, style->now);
    rs_text_pad(out, age, AGE);
    rs_buf_puts(out, " ");
    rs_text_pad(out, rs_json_str(e, "kind", "?"), KIND);
    rs_buf_puts(out, " ");
    rs_text_pad(out, rs_buf_text(&object), object_width);
    rs_buf_puts(out, " ");
    put_message(out, rs_buf_text(&message), indent, style->width);
}

static size_t object_width(const json_t *list, size_t width)
{
    rs_auto(rs_buf_fini) struct rs_buf object = {0};
    size_t want = OBJECT_MIN, room = width, i;
    const json_t *e;

    json_array_foreach (list, i, e) {
        size_t n;

        object_of(&object, e);
        n = rs_text_width(rs_buf_text(&object), rs_buf_len(&object));
        want = n > want ? n : want;
    }
    room = room > AGE + KIND + 3 + MESSAGE_MIN + OBJECT_MIN ? room - AGE - KIND - 3 - MESSAGE_MIN
                                                            : OBJECT_MIN;
    want = want < OBJECT_MAX ? want : OBJECT_MAX;
    return want < room ? want : room;
}

void rs_events_lines(const json_t *answer, const struct rs_events_style *style, struct rs_buf *out)
{
    const json_t *list = json_object_get(answer, "events"), *e;
    /* More lines may follow, whose objects are not known. */
    size_t objects = style->now < 0 ? OBJECT_FOLLOWED : object_width(list, style->width), i;

    if (rs_json_bool(answer, "lost", false))
        rs_buf_puts(out, "(older ones are not kept any more)\n");
    if (style->titles)
        rs_buf_printf(out, "%-*s %-*s %-*s %s\n", AGE, style->now < 0 ? "TIME" : "LAST SEEN", KIND,
                      "KIND", (int)objects, "OBJECT", "MESSAGE");
    json_array_foreach (list, i, e)
        put_event(e, style, objects, out);
    if (style->titles && json_array_size(list) == 0)
        rs_buf_puts(out, "nothing has happened\n");
}

/* --- asking -------------------------------------------------------------------------------------- */

static void add_query(struct rs_buf *path, const char *key, const char *value)
{
    if (!value)
        return;
    rs_buf_printf(path, "&%s=", key);
    rs_remote_encode(path, value);
}

/* `after` < 0: the last ones. */
static int ask(const struct rs_remote *remote, const struct rs_status_subject *of, int64_t after,
               unsigned limit, unsigned wait_s, json_t **ret, struct rs_error *err)
{
    rs_auto(rs_buf_fini) struct rs_buf path = {0};

    rs_buf_printf(&path, "/api/v1/events?limit=%u", limit);
    if (after >= 0)
        rs_buf_printf(&path, "&after=%lld", (long long)after);
    if (wait_s)
        rs_buf_printf(&path, "&wait=%u", wait_s);
    add_query(&path, "app", of->app);
    add_query(&path, "deployment", of->deployment);
    add_query(&path, "replica", of->replica);
    return rs_remote_get(remote, rs_buf_text(&path), "the question for events", ret, err);
}

static int print(const json_t *answer, const struct rs_events_show *show, bool first)
{
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    const struct rs_events_style style = {
        .width = show->width, .now = show->follow ? -1 : rs_clock_wall(), .titles = first};
    const json_t *e;
    size_t i;

    if (!show->json) {
        rs_events_lines(answer, &style, &out);
    } else if (show->follow) {
        json_array_foreach (json_object_get(answer, "events"), i, e) {
            rs_auto(rs_freep) char *line = rs_json_dump(e);

            rs_buf_printf(&out, "%s\n", line);
        }
    } else {
        rs_auto(rs_freep) char *text = rs_json_dump(answer);

        rs_buf_printf(&out, "%s\n", text);
    }
    fwrite(rs_buf_text(&out), 1, rs_buf_len(&out), stdout);
    return fflush(stdout) == 0 ? 0 : RS_EXIT_FAILED; /* nobody reads any more */
}

/* What comes after `last`, for as long as somebody reads. A head that is away may come back. */
static int follow(const struct rs_remote *remote, const struct rs_events_show *show, int64_t last)
{
    const struct timespec pause = {PAUSE_MS / 1000, 0};
    bool away = false;

    for (;;) {
        rs_auto(rs_json_decrefp) json_t *answer = NULL;
        struct rs_error err = {0};
        int64_t soon = rs_clock_now() + RS_SEC;
        int r;

        if (ask(remote, show->of, last, 1000, WAIT_S, &answer, &err) < 0) {
            if (!away)
                fprintf(stderr, "rserve status: %s; trying again\n", err.msg);
            away = true;
            nanosleep(&pause, NULL);
            continue;
        }
        away = false;
        r = print(answer, show, false);
        if (r != 0)
            return r;
        last = rs_json_int(answer, "last", last);
        if (json_array_size(json_object_get(answer, "events")) == 0 && rs_clock_now() < soon)
            nanosleep(&pause, NULL); /* too many wait there: it does not let this one wait */
    }
}

int rs_status_events(const struct rs_remote *remote, const struct rs_events_show *show,
                     struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *answer = NULL;
    int r;

    if (ask(remote, show->of, -1, show->follow ? FIRST : 1000, 0, &answer, err) < 0)
        return -1;
    r = print(answer, show, true);
    return r != 0 || !show->follow ? r : follow(remote, show, rs_json_int(answer, "last", 0));
}
