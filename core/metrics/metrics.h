/* Counters, gauges and histograms by name and labels, and their Prometheus text.
 *
 * Thread:    creating families and series takes a lock; adding and setting does not (atomics), so a
 *            hot path looks its series up once and keeps the pointer.
 * Ownership: the registry owns all; a series lives until rs_family_drop or the registry's end.
 * Names:     as exported, prefix included; a counter's name ends in _total.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <jansson.h>
#include <stdint.h>

struct rs_metrics;
struct rs_family;
struct rs_series;

enum rs_metric_kind { RS_COUNTER, RS_GAUGE, RS_HISTOGRAM };
enum { RS_LABELS_MAX = 8, RS_BUCKETS_MAX = 32 };

struct rs_family_conf {
    const char *name, *help;
    enum rs_metric_kind kind;
    const char *labels[RS_LABELS_MAX]; /* NULL-terminated unless full */
    const double *buckets;             /* histograms: upper bounds, rising, without +Inf */
    size_t n_buckets;
};

struct rs_metrics *rs_metrics_new(void);
void rs_metrics_free(struct rs_metrics *m);
RS_DEFINE_AUTO(struct rs_metrics *, rs_metrics_free);

/* The same name twice gives the same family. */
struct rs_family *rs_metrics_family(struct rs_metrics *m, const struct rs_family_conf *conf);
/* The series with these label values (one per label; NULL is ""); created at first use. */
struct rs_series *rs_family_series(struct rs_family *f, const char *const *values);
/* Removes the series whose label `label` has this value: a replica that is gone. */
void rs_family_drop(struct rs_family *f, const char *label, const char *value);
void rs_family_clear(struct rs_family *f); /* all of them */
/* Each series of a counter or gauge, with the values of its labels. `fn` may not call back. */
void rs_family_each(struct rs_family *f,
                    void (*fn)(const char *const *labels, double value, void *arg), void *arg);

void rs_series_add(struct rs_series *s, double amount);    /* counter, gauge */
void rs_series_set(struct rs_series *s, double value);     /* gauge */
void rs_series_observe(struct rs_series *s, double value); /* histogram */

/* What another process tells of its own figures, in place of what it told before: see reported.h. */
int rs_metrics_report(struct rs_metrics *m, const char *source, const json_t *metrics,
                      struct rs_error *why);
void rs_metrics_unreport(struct rs_metrics *m, const char *source); /* it is gone */

/* Prometheus text exposition 0.0.4 of everything. */
void rs_metrics_text(struct rs_metrics *m, struct rs_buf *out);
