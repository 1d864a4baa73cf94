#include "core/metrics/metrics.h"

#include "core/base/alloc.h"
#include "core/base/map.h"
#include "core/base/text.h"
#include "core/metrics/escape.h"
#include "core/metrics/reported.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* The registry's lock guards which families and series exist. Values are atomics: a reader may see
 * one sample of a histogram in its bucket and not yet in its sum. */
struct rs_metrics {
    pthread_mutex_t lock;
    struct rs_map families; /* by name */
    struct rs_reported *reported;
};

struct rs_family {
    struct rs_metrics *metrics;
    char *name, *help;
    enum rs_metric_kind kind;
    char *labels[RS_LABELS_MAX];
    size_t n_labels;
    double buckets[RS_BUCKETS_MAX];
    size_t n_buckets;
    struct rs_map series; /* by their label text */
};

struct rs_series {
    const struct rs_family *family;
    char *values[RS_LABELS_MAX];
    char *labels;          /* as exported: a="x",b="y" */
    _Atomic double value;  /* counter and gauge; a histogram's sum */
    _Atomic uint64_t *hit; /* histogram: samples per bucket, the last one is +Inf */
};

struct rs_metrics *rs_metrics_new(void)
{
    struct rs_metrics *m = rs_alloc(sizeof(*m));

    pthread_mutex_init(&m->lock, NULL);
    m->reported = rs_reported_new();
    return m;
}

static void series_free(struct rs_series *s)
{
    for (size_t i = 0; i < s->family->n_labels; i++)
        free(s->values[i]);
    free(s->labels);
    free(s->hit);
    free(s);
}

static void series_free_all(struct rs_family *f)
{
    for (size_t i = 0; i < rs_map_slots(&f->series); i++) {
        struct rs_series *s = rs_map_at(&f->series, i, NULL);

        if (s)
            series_free(s);
    }
    rs_map_fini(&f->series);
}

static void family_free(struct rs_family *f)
{
    series_free_all(f);
    for (size_t i = 0; i < f->n_labels; i++)
        free(f->labels[i]);
    free(f->name);
    free(f->help);
    free(f);
}

void rs_metrics_free(struct rs_metrics *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < rs_map_slots(&m->families); i++) {
        struct rs_family *f = rs_map_at(&m->families, i, NULL);

        if (f)
            family_free(f);
    }
    rs_map_fini(&m->families);
    rs_reported_free(m->reported);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static struct rs_family *family_new(struct rs_metrics *m, const struct rs_family_conf *conf)
{
    struct rs_family *f = rs_alloc(sizeof(*f));

    assert(conf->n_buckets <= RS_BUCKETS_MAX);
    f->metrics = m;
    f->name = rs_strdup(conf->name);
    f->help = rs_strdup(conf->help ? conf->help : "");
    f->kind = conf->kind;
    while (f->n_labels < RS_LABELS_MAX && conf->labels[f->n_labels]) {
        f->labels[f->n_labels] = rs_strdup(conf->labels[f->n_labels]);
        f->n_labels++;
    }
    for (size_t i = 0; i < conf->n_buckets; i++) {
        assert(i == 0 || conf->buckets[i] > conf->buckets[i - 1]);
        f->buckets[i] = conf->buckets[i];
    }
    f->n_buckets = conf->n_buckets;
    return f;
}

struct rs_family *rs_metrics_family(struct rs_metrics *m, const struct rs_family_conf *conf)
{
    struct rs_family *f;

    pthread_mutex_lock(&m->lock);
    f = rs_map_get(&m->families, conf->name);
    if (!f) {
        f = family_new(m, conf);
        rs_map_put(&m->families, f->name, f);
    }
    pthread_mutex_unlock(&m->lock);
    return f;
}

void rs_metrics_escape(struct rs_buf *out, const char *text, bool quotes)
{
    for (const char *at = text, *end = text + strlen(text); at < end;) {
        const char *from = at;
        int32_t c = rs_utf8_next(&at, end);

        if (c < 0)
            rs_buf_puts(out, "\xef\xbf\xbd");
        else if (c == '\n')
            rs_buf_puts(out, "\\n");
        else if (c == '\\' || (c == '"' && quotes))
            rs_buf_printf(out, "\\%c", (int)c);
        else
            rs_buf_append(out, from, (size_t)(at - from));
    }
}

static char *label_text(const struct rs_family *f, const char *const *values)
{
    struct rs_buf out = {0};

    for (size_t i = 0; i < f->n_labels; i++) {
        rs_buf_printf(&out, "%s%s=\"", i ? "," : "", f->labels[i]);
        rs_metrics_escape(&out, values[i] ? values[i] : "", true);
        rs_buf_puts(&out, "\"");
    }
    return rs_buf_steal(&out);
}

static struct rs_series *series_new(const struct rs_family *f, const char *const *values,
                                    const char *labels)
{
    struct rs_series *s = rs_alloc(sizeof(*s));

    s->family = f;
    for (size_t i = 0; i < f->n_labels; i++)
        s->values[i] = rs_strdup(values[i] ? values[i] : "");
    s->labels = rs_strdup(labels);
    if (f->kind == RS_HISTOGRAM)
        s->hit = rs_alloc((f->n_buckets + 1) * sizeof(*s->hit));
    return s;
}

struct rs_series *rs_family_series(struct rs_family *f, const char *const *values)
{
    rs_auto(rs_freep) char *labels = label_text(f, values);
    struct rs_series *s;

    pthread_mutex_lock(&f->metrics->lock);
    s = rs_map_get(&f->series, labels);
    if (!s) {
        s = series_new(f, values, labels);
        rs_map_put(&f->series, labels, s);
    }
    pthread_mutex_unlock(&f->metrics->lock);
    return s;
}

void rs_family_drop(struct rs_family *f, const char *label, const char *value)
{
    size_t nr = 0;

    while (nr < f->n_labels && strcmp(f->labels[nr], label) != 0)
        nr++;
    if (nr == f->n_labels)
        return;
    pthread_mutex_lock(&f->metrics->lock);
    for (size_t i = 0; i < rs_map_slots(&f->series); i++) {
        struct rs_series *s = rs_map_at(&f->series, i, NULL);

        if (!s || strcmp(s->values[nr], value) != 0)
            continue;
        rs_map_remove(&f->series, s->labels);
        series_free(s);
    }
    pthread_mutex_unlock(&f->metrics->lock);
}

void rs_family_each(struct rs_family *f,
                    void (*fn)(const char *const *labels, double value, void *arg), void *arg)
{
    pthread_mutex_lock(&f->metrics->lock);
    for (size_t i = 0; i < rs_map_slots(&f->series); i++) {
        struct rs_series *s = rs_map_at(&f->series, i, NULL);

        if (s)
            fn((const char *const *)s->values,
               atomic_load_explicit(&s->value, memory_order_relaxed), arg);
    }
    pthread_mutex_unlock(&f->metrics->lock);
}

void rs_family_clear(struct rs_family *f)
{
    pthread_mutex_lock(&f->metrics->lock);
    series_free_all(f);
    pthread_mutex_unlock(&f->metrics->lock);
}

static void atomic_add(_Atomic double *value, double amount)
{
    double old = atomic_load_explicit(value, memory_order_relaxed);

    while (!atomic_compare_exchange_weak_explicit(value, &old, old + amount, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

void rs_series_add(struct rs_series *s, double amount)
{
    assert(s->family->kind == RS_GAUGE || (s->family->kind == RS_COUNTER && amount >= 0));
    atomic_add(&s->value, amount);
}

void rs_series_set(struct rs_series *s, double value)
{
    assert(s->family->kind == RS_GAUGE);
    atomic_store_explicit(&s->value, value, memory_order_relaxed);
}

void rs_series_observe(struct rs_series *s, double value)
{
    const struct rs_family *f = s->family;
    size_t i = 0;

    assert(f->kind == RS_HISTOGRAM);
    while (i < f->n_buckets && !(value <= f->buckets[i]))
        i++;
    atomic_fetch_add_explicit(&s->hit[i], 1, memory_order_relaxed);
    atomic_add(&s->value, value);
}

static void put_histogram(struct rs_buf *out, const struct rs_family *f, struct rs_series *s)
{
    const char *comma = s->labels[0] ? "," : "";
    uint64_t total = 0;
    char text[RS_DOUBLE_TEXT];

    for (size_t i = 0; i <= f->n_buckets; i++) {
        double bound = i < f->n_buckets ? f->buckets[i] : (double)INFINITY;

        total += atomic_load_explicit(&s->hit[i], memory_order_relaxed);
        rs_buf_printf(out, "%s_bucket{%s%sle=\"%s\"} %llu\n", f->name, s->labels, comma,
                      rs_text_double(bound, text), (unsigned long long)total);
    }
    rs_buf_printf(out, s->labels[0] ? "%s_count{%s} %llu\n" : "%s_count%s %llu\n", f->name,
                  s->labels, (unsigned long long)total);
    rs_buf_printf(out, s->labels[0] ? "%s_sum{%s} %s\n" : "%s_sum%s %s\n", f->name, s->labels,
                  rs_text_double(atomic_load(&s->value), text));
}

static void put_family(struct rs_buf *out, const struct rs_family *f)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    char text[RS_DOUBLE_TEXT];

    rs_buf_printf(out, "# HELP %s ", f->name);
    rs_metrics_escape(out, f->help, false);
    rs_buf_printf(out, "\n# TYPE %s %s\n", f->name, kinds[f->kind]);
    for (size_t i = 0; i < rs_map_slots(&f->series); i++) {
        struct rs_series *s = rs_map_at(&f->series, i, NULL);

        if (!s)
            continue;
        if (f->kind == RS_HISTOGRAM)
            put_histogram(out, f, s);
        else
            rs_buf_printf(out, s->labels[0] ? "%s{%s} %s\n" : "%s%s %s\n", f->name, s->labels,
                          rs_text_double(atomic_load(&s->value), text));
    }
}

void rs_metrics_text(struct rs_metrics *m, struct rs_buf *out)
{
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < rs_map_slots(&m->families); i++) {
        const struct rs_family *f = rs_map_at(&m->families, i, NULL);

        if (f && rs_map_count(&f->series))
            put_family(out, f);
    }
    rs_reported_text(m->reported, out);
    pthread_mutex_unlock(&m->lock);
}

static bool is_ours(const char *name, void *arg)
{
    const struct rs_metrics *m = arg;

    return rs_map_get(&m->families, name) != NULL;
}

int rs_metrics_report(struct rs_metrics *m, const char *source, const json_t *metrics,
                      struct rs_error *why)
{
    int r;

    pthread_mutex_lock(&m->lock);
    r = rs_reported_take(m->reported, source, metrics, is_ours, m, why);
    pthread_mutex_unlock(&m->lock);
    return r;
}

void rs_metrics_unreport(struct rs_metrics *m, const char *source)
{
    pthread_mutex_lock(&m->lock);
    rs_reported_drop(m->reported, source);
    pthread_mutex_unlock(&m->lock);
}
