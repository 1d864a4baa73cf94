#include "core/metrics/reported.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/base/map.h"
#include "core/base/text.h"
#include "core/metrics/escape.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const kinds[] = {"counter", "gauge", "histogram"};
enum { COUNTER, GAUGE, HISTOGRAM, KINDS };

/* A name that some source has. */
struct family {
    char *help;
    int kind;
    unsigned sources;
};

/* What one source told of one family: the lines of its samples. */
struct part {
    struct rs_buf text;
    size_t lines;
};

struct source {
    struct rs_map parts; /* by name */
    bool told;           /* that something was left out */
};

struct rs_reported {
    struct rs_map families; /* by name, in the order in which they came */
    struct rs_map sources;
    size_t lines;
};

struct rs_reported *rs_reported_new(void)
{
    return rs_alloc(sizeof(struct rs_reported));
}

static void family_free(struct family *f)
{
    free(f->help);
    free(f);
}

static void drop_parts(struct rs_reported *r, struct source *s)
{
    for (size_t i = 0; i < rs_map_slots(&s->parts); i++) {
        const char *name;
        struct part *p = rs_map_at(&s->parts, i, &name);
        struct family *f = p ? rs_map_get(&r->families, name) : NULL;

        if (!p)
            continue;
        if (f && --f->sources == 0)
            family_free(rs_map_remove(&r->families, name));
        r->lines -= p->lines;
        rs_buf_fini(&p->text);
        free(p);
    }
    rs_map_fini(&s->parts);
}

void rs_reported_drop(struct rs_reported *r, const char *source)
{
    struct source *s = rs_map_remove(&r->sources, source);

    if (!s)
        return;
    drop_parts(r, s);
    free(s);
}

void rs_reported_free(struct rs_reported *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < rs_map_slots(&r->sources); i++) {
        struct source *s = rs_map_at(&r->sources, i, NULL);

        if (!s)
            continue;
        drop_parts(r, s);
        free(s);
    }
    rs_map_fini(&r->sources);
    rs_map_fini(&r->families);
    free(r);
}

/* --- one metric of a message --------------------------------------------------------------------- */

static bool is_name(const char *text)
{
    if (strlen(text) > RS_REPORTED_TEXT_MAX)
        return false;
    if (!isalpha((unsigned char)*text) && *text != '_' && *text != ':')
        return false;
    for (; *text; text++) {
        if (!isalnum((unsigned char)*text) && *text != '_' && *text != ':')
            return false;
    }
    return true;
}

static bool ends_with(const char *text, const char *tail)
{
    size_t n = strlen(text), m = strlen(tail);

    return n >= m && strcmp(text + n - m, tail) == 0;
}

/* The caller's; NULL: none that can be exported. */
static char *exported_name(const char *name, int kind)
{
    if (!name || !is_name(name))
        return NULL;
    return rs_asprintf("ray_%s%s", name,
                       kind == COUNTER && !ends_with(name, "_total") ? "_total" : "");
}

static int kind_of(const json_t *metric)
{
    const char *name = rs_json_str(metric, "kind", "");
    int kind = 0;

    while (kind < KINDS && strcmp(kinds[kind], name) != 0)
        kind++;
    return kind;
}

static bool number(const json_t *j, double *ret)
{
    const char *text = json_string_value(j);

    if (json_is_number(j))
        *ret = json_number_value(j);
    else if (text && strcmp(text, "NaN") == 0)
        *ret = (double)NAN;
    else if (text && strcmp(text, "+Inf") == 0)
        *ret = (double)INFINITY;
    else if (text && strcmp(text, "-Inf") == 0)
        *ret = -(double)INFINITY;
    else
        return false;
    return true;
}

/* What no label may hold becomes an underscore. */
static void put_name(struct rs_buf *out, const char *name)
{
    if (!isalpha((unsigned char)*name) && *name != '_')
        rs_buf_puts(out, "_");
    for (; *name; name++)
        rs_buf_printf(out, "%c", isalnum((unsigned char)*name) ? *name : '_');
}

/* Two names may become one; a reader would refuse all series for that: the first one stays. */
static bool has_name(const struct rs_buf *names, const char *name)
{
    const char *at = rs_buf_text(names);

    while ((at = strstr(at, name))) {
        if (at[strlen(name)] == ',' && at > rs_buf_text(names) && at[-1] == ',')
            return true;
        at++;
    }
    return false;
}

static void put_label(struct rs_buf *out, struct rs_buf *names, const char *name, const char *value)
{
    rs_auto(rs_buf_fini) struct rs_buf own = {0};

    put_name(&own, name);
    if (has_name(names, rs_buf_text(&own)))
        return;
    rs_buf_printf(names, "%s%s,", rs_buf_len(names) ? "" : ",", rs_buf_text(&own));
    if (rs_buf_len(out))
        rs_buf_puts(out, ",");
    rs_buf_puts(out, rs_buf_text(&own));
    rs_buf_puts(out, "=\"");
    rs_metrics_escape(out, value, true);
    rs_buf_puts(out, "\"");
}

static void put_labels(struct rs_buf *out, const char *source, const json_t *sample)
{
    json_t *labels = json_object_get(sample, "labels"), *value;
    rs_auto(rs_buf_fini) struct rs_buf names = {0};
    const char *name;

    json_object_foreach (labels, name, value) {
        if (json_is_string(value))
            put_label(out, &names, name, json_string_value(value));
    }
    if (!json_is_string(json_object_get(labels, "replica")))
        put_label(out, &names, "WorkerId", source);
}

static bool put_histogram(struct part *p, const char *name, const char *labels,
                          const json_t *boundaries, const json_t *sample)
{
    const json_t *buckets = json_object_get(sample, "buckets");
    size_t n = json_array_size(boundaries);
    double total = 0, sum, bound;
    char text[RS_DOUBLE_TEXT];

    if (json_array_size(buckets) != n + 1 || !number(json_object_get(sample, "sum"), &sum))
        return false;
    for (size_t i = 0; i <= n; i++) {
        double count = 0;

        bound = (double)INFINITY;
        if ((i < n && !number(json_array_get(boundaries, i), &bound)) ||
            !number(json_array_get(buckets, i), &count) || !isfinite(count))
            return false;
        total += count;
        rs_buf_printf(&p->text, "%s_bucket{%s,le=\"%s\"} %.0f\n", name, labels,
                      rs_text_double(bound, text), total);
    }
    rs_buf_printf(&p->text, "%s_count{%s} %.0f\n", name, labels, total);
    rs_buf_printf(&p->text, "%s_sum{%s} %s\n", name, labels, rs_text_double(sum, text));
    p->lines += n + 3;
    return true;
}

/* Why it says nothing that can be shown: the part is as it was; NULL: it is shown. */
static const char *put_sample(struct part *p, const char *name, int kind, const char *source,
                              const json_t *metric, const json_t *sample)
{
    struct rs_buf labels = {0};
    size_t before = rs_buf_len(&p->text);
    char text[RS_DOUBLE_TEXT];
    double value;
    bool ok;

    put_labels(&labels, source, sample);
    if (rs_buf_len(&labels) > RS_REPORTED_TEXT_MAX) { /* each line of a histogram has them */
        rs_buf_fini(&labels);
        return "has labels that are too long";
    }
    if (kind == HISTOGRAM) {
        ok = put_histogram(p, name, rs_buf_text(&labels), json_object_get(metric, "boundaries"),
                           sample);
    } else {
        ok = number(json_object_get(sample, "value"), &value);
        if (ok)
            rs_buf_printf(&p->text, "%s{%s} %s\n", name, rs_buf_text(&labels),
                          rs_text_double(value, text));
        p->lines += ok;
    }
    if (!ok)
        p->text.end = p->text.start + before;
    rs_buf_fini(&labels);
    return ok ? NULL : "holds no number";
}

static size_t lines_of(int kind, const json_t *metric)
{
    return kind == HISTOGRAM ? json_array_size(json_object_get(metric, "boundaries")) + 3 : 1;
}

static void put_part(struct rs_reported *r, struct source *s, const char *source, const char *name,
                     int kind, const json_t *metric, struct rs_error *why)
{
    const json_t *samples = json_object_get(metric, "samples"), *sample;
    struct part *p = rs_alloc(sizeof(*p));
    const char *objection;
    struct family *f;
    size_t i;

    json_array_foreach (samples, i, sample) {
        if (r->lines + p->lines + lines_of(kind, metric) > RS_REPORTED_MAX) {
            rs_error_set(why, RS_NO_ROOM,
                         "user metrics of this node reached the limit of %d lines; %zu of %zu "
                         "series of %s were left out",
                         RS_REPORTED_MAX, json_array_size(samples) - i, json_array_size(samples),
                         name);
            break;
        }
        objection = put_sample(p, name, kind, source, metric, sample);
        if (objection)
            rs_error_set(why, RS_INVALID, "a series of %s %s", name, objection);
    }
    if (p->lines == 0) {
        rs_buf_fini(&p->text);
        free(p);
        return;
    }
    f = rs_map_get(&r->families, name);
    if (!f) {
        f = rs_alloc(sizeof(*f));
        f->kind = kind;
        f->help = rs_strdup(rs_json_str(metric, "help", ""));
        rs_map_put(&r->families, name, f);
    }
    f->sources++;
    r->lines += p->lines;
    rs_map_put(&s->parts, name, p);
}

int rs_reported_take(struct rs_reported *r, const char *source, const json_t *metrics,
                     bool (*taken)(const char *name, void *arg), void *arg, struct rs_error *why)
{
    struct source *s = rs_map_get(&r->sources, source);
    struct rs_error left_out = {0};
    const json_t *metric;
    size_t i;

    if (!s) {
        s = rs_alloc(sizeof(*s));
        rs_map_put(&r->sources, source, s);
    }
    drop_parts(r, s);
    json_array_foreach (metrics, i, metric) {
        int kind = kind_of(metric);
        const char *given = rs_json_str(metric, "name", NULL);
        rs_auto(rs_freep) char *name = kind < KINDS ? exported_name(given, kind) : NULL;
        const struct family *f = name ? rs_map_get(&r->families, name) : NULL;

        if (!name)
            rs_error_set(&left_out, RS_INVALID, "metric %zu has no name or kind that can be shown",
                         i);
        else if (taken(name, arg))
            rs_error_set(&left_out, RS_CONFLICT, "%s is a figure of rserve's own", name);
        else if (f && f->kind != kind)
            rs_error_set(&left_out, RS_CONFLICT, "%s is a %s here and a %s elsewhere", name,
                         kinds[kind], kinds[f->kind]);
        else if (!rs_map_get(&s->parts, name))
            put_part(r, s, source, name, kind, metric, &left_out);
    }
    if (!left_out.msg[0] || s->told)
        return 0;
    s->told = true;
    *why = left_out;
    return RS_REPORTED_LEFT_OUT;
}

void rs_reported_text(const struct rs_reported *r, struct rs_buf *out)
{
    for (size_t i = 0; i < rs_map_slots(&r->families); i++) {
        const char *name;
        const struct family *f = rs_map_at(&r->families, i, &name);

        if (!f)
            continue;
        rs_buf_printf(out, "# HELP %s ", name);
        rs_metrics_escape(out, f->help, false);
        rs_buf_printf(out, "\n# TYPE %s %s\n", name, kinds[f->kind]);
        for (size_t k = 0; k < rs_map_slots(&r->sources); k++) {
            const struct source *s = rs_map_at(&r->sources, k, NULL);
            const struct part *p = s ? rs_map_get(&s->parts, name) : NULL;

            if (p)
                rs_buf_append(out, rs_buf_head(&p->text), rs_buf_len(&p->text));
        }
    }
}
