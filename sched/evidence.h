/* How much speaks for one of two groups failing more often than the other, added up batch by batch so
 * that one may look after each batch and stop at any of them: an e-process. Pure.
 *
 * Two groups: given how many requests of a batch failed altogether, and that both groups fail equally
 *             often, how many of those are of the new group follows a hypergeometric distribution,
 *             exactly, whatever the rate of failure is and however it changes from batch to batch (a
 *             database that is away hurts both). The evidence is the likelihood of what was seen where
 *             the odds of a failure are R times as high, over that where they are equal, mixed over some
 *             R above 1, multiplied up over the batches.
 * One group:  the same for "it fails more often than `limit`", with binomial likelihoods.
 * Bound:      where the new group fails as often or less (or not above the limit), the probability that
 *             the evidence EVER reaches 1/a is at most a (Ville's inequality): no correction for looking
 *             often, and no minimum of requests is needed for that.
 * Units:      evidence is its natural logarithm.
 */
#pragma once

#include <stdint.h>

enum { RS_EVIDENCE_RATIOS = 6 };

struct rs_evidence {
    double log_e[RS_EVIDENCE_RATIOS]; /* zeroed: nothing was seen */
};

struct rs_evidence_batch {
    uint64_t old_n, old_bad, new_n, new_bad; /* bad <= n */
};

void rs_evidence_compare(struct rs_evidence *e, const struct rs_evidence_batch *b);
/* `n` requests of which `bad` failed, against a limit above 0 and below 1. */
void rs_evidence_limit(struct rs_evidence *e, uint64_t n, uint64_t bad, double limit);
double rs_evidence_log(const struct rs_evidence *e);
