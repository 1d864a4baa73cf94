#include "cmd/simulate_trace.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct reader {
    struct rs_sim_trace *trace;
    const char *file;
    unsigned line;
    struct rs_error *err;
};

/* --- what is wrong ------------------------------------------------------------------------------- */

static int wrong(const struct reader *x, const char *name, const char *expected, const json_t *got)
{
    rs_auto(rs_freep) char *text = got ? rs_json_dump(got) : rs_strdup("nothing");

    return rs_error_set(x->err, RS_INVALID, "%s:%u: \"%s\": expected %s, got %.60s", x->file,
                        x->line, name, expected, text);
}

static int read_number(const struct reader *x, const json_t *row, const char *name, double max,
                       double *ret)
{
    const json_t *j = json_object_get(row, name);
    double v = json_is_number(j) ? json_number_value(j) : -1;

    if (!(v >= 0) || v > max)
        return wrong(x, name, "a number that is not negative", j);
    *ret = v;
    return 0;
}

/* One copy of each text; NULL stays NULL. */
static const char *keep(struct rs_sim_trace *t, const char *text)
{
    char *copy = text ? rs_map_get(&t->texts, text) : NULL;

    if (text && !copy) {
        copy = rs_strdup(text);
        rs_map_put(&t->texts, text, copy);
    }
    return copy;
}

static int read_text(const struct reader *x, const json_t *row, const char *name, const char **ret)
{
    const json_t *j = json_object_get(row, name);

    if (j && !json_is_null(j) && (!json_is_string(j) || !*json_string_value(j)))
        return wrong(x, name, "a text", j);
    *ret = keep(x->trace, json_string_value(j));
    return 0;
}

/* --- rows ---------------------------------------------------------------------------------------- */

static void add_work(struct rs_sim_trace *t, struct rs_sim_arrival *a, const char *deployment,
                     double service_s)
{
    t->works = rs_grow(t->works, &t->cap_works, t->n_works + 1, sizeof(*t->works));
    t->works[t->n_works++] = (struct rs_sim_work){keep(t, deployment), service_s};
    a->works++;
}

static int read_works(const struct reader *x, const json_t *row, struct rs_sim_arrival *a)
{
    const json_t *service = json_object_get(row, "service_s");
    const char *name;
    json_t *j;
    double v;

    if (json_is_number(service)) {
        if (read_number(x, row, "service_s", RS_SIM_TIME_MAX, &v) < 0)
            return -1;
        add_work(x->trace, a, NULL, v);
        return 0;
    }
    if (!json_is_object(service) || json_object_size(service) == 0)
        return wrong(x, "service_s", "seconds, or an object of deployments and their seconds",
                     service);
    json_object_foreach ((json_t *)(uintptr_t)service, name, j) {
        v = json_is_number(j) ? json_number_value(j) : -1;
        if (!*name || !(v >= 0) || v > RS_SIM_TIME_MAX)
            return wrong(x, name, "a number that is not negative", j);
        add_work(x->trace, a, name, v);
    }
    return 0;
}

static int read_own(const struct reader *x, const json_t *row, struct rs_sim_arrival *a)
{
    if (read_number(x, row, "t", RS_SIM_TIME_MAX, &a->t) < 0 ||
        read_text(x, row, "app", &a->app) < 0 || read_text(x, row, "path", &a->path) < 0)
        return -1;
    return read_works(x, row, a);
}

/* Of who was refused before any work it is not known how long that would have taken. */
static int read_logged(const struct reader *x, const json_t *row, struct rs_sim_arrival *a)
{
    double ended_ns = 0, took_ms = 0, status = 0;
    const char *where;

    if (read_number(x, row, "timestamp_ns", 1e20, &ended_ns) < 0 ||
        read_number(x, row, "latency_ms", RS_SIM_TIME_MAX, &took_ms) < 0 ||
        read_number(x, row, "status", 999, &status) < 0 || read_text(x, row, "path", &a->path) < 0)
        return -1;
    where = rs_json_str(row, "application", "");
    a->app = *where ? keep(x->trace, where) : NULL;
    a->t = fmax(0, ended_ns / 1e9 - took_ms / 1e3);
    where = rs_json_str(row, "deployment", "");
    add_work(x->trace, a, *where ? where : NULL, status < 400 ? took_ms / 1e3 : -1);
    x->trace->from_log++;
    return 0;
}

/* Ends at its newline, which is not part of it. */
static int read_row(struct reader *x, const char *text, size_t len)
{
    rs_auto(rs_json_decrefp) json_t *row = NULL;
    struct rs_sim_arrival a = {.work = x->trace->n_works, .line = x->line};
    struct rs_error err = {0};
    int r;

    if (len > RS_SIM_LINE_MAX)
        return rs_error_set(x->err, RS_INVALID, "%s:%u: a line of %zu bytes, %u is the limit",
                            x->file, x->line, len, RS_SIM_LINE_MAX);
    if (strspn(text, " \t\r") >= len)
        return 0;
    if (rs_json_parse(&row, text, len, "row", &err) < 0)
        return rs_error_set(x->err, RS_INVALID, "%s:%u: expected a JSON object: %s", x->file,
                            x->line, err.msg);
    if (!json_is_object(row))
        return wrong(x, "row", "a JSON object", row);
    r = json_object_get(row, "t")              ? read_own(x, row, &a)
        : json_object_get(row, "timestamp_ns") ? read_logged(x, row, &a)
                                               : wrong(x, "t", "seconds", NULL);
    if (r < 0)
        return -1;
    x->trace->arrivals =
        rs_grow(x->trace->arrivals, &x->trace->cap, x->trace->n + 1, sizeof(*x->trace->arrivals));
    x->trace->arrivals[x->trace->n++] = a;
    return 0;
}

static int by_time(const void *a, const void *b)
{
    const struct rs_sim_arrival *x = a, *y = b;

    if (x->t != y->t)
        return x->t < y->t ? -1 : 1;
    return (x->line > y->line) - (x->line < y->line);
}

int rs_sim_trace_parse(struct rs_sim_trace *ret, const char *text, size_t len, const char *file,
                       struct rs_error *err)
{
    struct reader x = {.trace = ret, .file = file, .err = err};

    for (size_t at = 0; at < len;) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t n = end ? (size_t)(end - text) - at : len - at;
        /* strspn in read_row stops at the newline, or at the NUL behind a copy of the last line */
        rs_auto(rs_freep) char *line = rs_strndup(text + at, n <= RS_SIM_LINE_MAX ? n : 0);

        x.line++;
        if (read_row(&x, line, n) < 0) {
            rs_sim_trace_fini(ret);
            return -1;
        }
        at += n + 1;
    }
    if (ret->n == 0) {
        rs_sim_trace_fini(ret);
        return rs_error_set(err, RS_INVALID, "%s: there is no request in it", file);
    }
    qsort(ret->arrivals, ret->n, sizeof(*ret->arrivals), by_time);
    return 0;
}

int rs_sim_trace_load(struct rs_sim_trace *ret, const char *file, struct rs_error *err)
{
    rs_auto(rs_closep) int fd = open(file, O_RDONLY | O_CLOEXEC);
    rs_auto(rs_buf_fini) struct rs_buf data = {0};
    ssize_t n = -1;

    if (fd < 0)
        return rs_error_errno(err, errno, "cannot read '%s'", file);
    while ((n = read(fd, rs_buf_reserve(&data, 1 << 20), 1 << 20)) > 0)
        rs_buf_commit(&data, (size_t)n);
    if (n < 0)
        return rs_error_errno(err, errno, "cannot read '%s'", file);
    return rs_sim_trace_parse(ret, rs_buf_text(&data), rs_buf_len(&data), file, err);
}

void rs_sim_trace_fini(struct rs_sim_trace *t)
{
    for (size_t i = 0; i < rs_map_slots(&t->texts); i++)
        free(rs_map_at(&t->texts, i, NULL));
    rs_map_fini(&t->texts);
    free(t->arrivals);
    free(t->works);
    *t = (struct rs_sim_trace){0};
}
