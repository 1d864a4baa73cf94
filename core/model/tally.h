/* What became of the requests of one version of a deployment: counts, and how long they took in a
 * histogram whose buckets are the same everywhere, so that tallies of several nodes add up.
 *
 * Buckets:   of microseconds: eight for each doubling, so a bucket is at most an eighth as wide as what
 *            is in it; from 2^32 us (71 minutes) on all is in the last one.
 * Ownership: a plain value of about 2 KB.
 */
#pragma once

#include "core/base/error.h"

#include <jansson.h>
#include <stdint.h>

enum { RS_TALLY_BUCKETS = 240 };

struct rs_tally {
    uint64_t requests; /* that ended; one that its client gave up is not counted */
    uint64_t errors;   /* of those: exceptions, 5xx, no end in time; not those that died with it */
    uint64_t deaths;   /* replicas that ended unasked */
    uint64_t bucket[RS_TALLY_BUCKETS];
};

unsigned rs_tally_bucket(int64_t ns);
int64_t rs_tally_upper(unsigned bucket); /* ns; what is in it took less */

void rs_tally_add(struct rs_tally *to, const struct rs_tally *more);
/* What came between two looks. False: something went back, so they are not of one count. */
bool rs_tally_since(const struct rs_tally *now, const struct rs_tally *before,
                    struct rs_tally *ret);
uint64_t rs_tally_timed(const struct rs_tally *t);                  /* those in the buckets */
uint64_t rs_tally_above(const struct rs_tally *t, unsigned bucket); /* those in later ones */
/* The bucket in which the quantile is, 0 < q <= 1; -1: nothing was timed. */
int rs_tally_quantile(const struct rs_tally *t, double q);

/* {"requests", "errors", "deaths", "latency": [[bucket, count], ..]}. New. */
json_t *rs_tally_to_json(const struct rs_tally *t);
RS_MUST_CHECK int rs_tally_from_json(struct rs_tally *ret, const json_t *j, struct rs_error *err);
