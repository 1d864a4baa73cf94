/* Figures that other processes keep and tell whole: the counters, gauges and histograms of user code.
 *
 * Rule:      what a source (a replica) tells replaces what it told before; its series go when it goes.
 *            A name has one kind, that of who told it first; names get the prefix "ray_", counters the
 *            suffix "_total". A sample without a label "replica" gets "WorkerId", so that two sources
 *            never have the same series.
 * Bound:     RS_REPORTED_MAX lines of text for all sources together, and RS_REPORTED_TEXT_MAX bytes of
 *            labels in each; what is beyond is left out.
 * Errors:    nothing in a message is trusted; what cannot be shown is left out, and told once per source.
 * Thread:    the caller's lock (metrics.c).
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/error.h"

#include <jansson.h>
#include <stdbool.h>

struct rs_reported;

enum {
    RS_REPORTED_MAX = 50000,
    RS_REPORTED_TEXT_MAX = 2000, /* bytes of a name, and of the labels of a series */
};
enum { RS_REPORTED_LEFT_OUT = 1 };

struct rs_reported *rs_reported_new(void);
void rs_reported_free(struct rs_reported *r); /* NULL is fine */

/* `metrics`: an array of {"name", "kind": "counter"|"gauge"|"histogram", "help", "boundaries": [..],
 * "samples": [{"labels": {..}, "value": x | "buckets": [..], "sum": x}]}; x is a number, "NaN", "+Inf" or
 * "-Inf". `taken` tells names (as exported) that are not to be had. RS_REPORTED_LEFT_OUT: `why` tells
 * what, the first time for this source. */
int rs_reported_take(struct rs_reported *r, const char *source, const json_t *metrics,
                     bool (*taken)(const char *name, void *arg), void *arg, struct rs_error *why);
void rs_reported_drop(struct rs_reported *r, const char *source); /* unknown is fine */
void rs_reported_text(const struct rs_reported *r, struct rs_buf *out);
