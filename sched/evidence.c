#include "sched/evidence.h"

#include <float.h>
#include <math.h>
#include <stddef.h>

/* How many times as high the odds of a failure may be. */
static const double ratios[RS_EVIDENCE_RATIOS] = {1.5, 2.5, 5, 12, 40, 200};

enum { BAD_MAX = 2048 }; /* of one batch; what is beyond is left out in proportion */
#define RATE_MAX 0.95

/* log(sum of exp(at)), added to one by one. */
struct log_sum {
    double top, rest;
};

static void add(struct log_sum *s, double x)
{
    if (x <= s->top) {
        s->rest += exp(x - s->top);
        return;
    }
    s->rest = s->rest * exp(s->top - x) + 1;
    s->top = x;
}

static double value(const struct log_sum *s)
{
    return s->top + log(s->rest);
}

/* Adds the logarithms of the weights of all numbers of bad ones that the new group may have, times
 * R^(number - seen), to `sums`: the last one is without R. */
static void weigh(const struct rs_evidence_batch *b, struct log_sum sums[RS_EVIDENCE_RATIOS + 1])
{
    double bad = (double)(b->old_bad + b->new_bad), n1 = (double)b->new_n, n0 = (double)b->old_n;
    uint64_t all = b->old_bad + b->new_bad, high = all < b->new_n ? all : b->new_n;
    double w = 0;

    for (uint64_t at = all > b->old_n ? all - b->old_n : 0; at <= high; at++) {
        double k = (double)at;

        for (size_t i = 0; i < RS_EVIDENCE_RATIOS; i++)
            add(&sums[i], w + (k - (double)b->new_bad) * log(ratios[i]));
        add(&sums[RS_EVIDENCE_RATIOS], w);
        if (at < high)
            w += log((n1 - k) * (bad - k)) - log((k + 1) * (n0 - bad + k + 1));
    }
}

static struct rs_evidence_batch bounded(struct rs_evidence_batch b)
{
    double keep = (double)BAD_MAX / (double)(b.old_bad + b.new_bad);

    if (b.old_bad + b.new_bad <= BAD_MAX)
        return b;
    return (struct rs_evidence_batch){
        .old_n = (uint64_t)ceil((double)b.old_n * keep),
        .old_bad = (uint64_t)ceil((double)b.old_bad * keep),
        .new_n = (uint64_t)ceil((double)b.new_n * keep),
        .new_bad = (uint64_t)((double)b.new_bad * keep),
    };
}

void rs_evidence_compare(struct rs_evidence *e, const struct rs_evidence_batch *batch)
{
    struct rs_evidence_batch b = bounded(*batch);
    struct log_sum sums[RS_EVIDENCE_RATIOS + 1];

    if (!b.old_n || !b.new_n || b.old_bad + b.new_bad == 0 ||
        b.old_bad + b.new_bad == b.old_n + b.new_n)
        return; /* one way only */
    for (size_t i = 0; i <= RS_EVIDENCE_RATIOS; i++)
        sums[i] = (struct log_sum){.top = -DBL_MAX / 2};
    weigh(&b, sums);
    for (size_t i = 0; i < RS_EVIDENCE_RATIOS; i++)
        e->log_e[i] += value(&sums[RS_EVIDENCE_RATIOS]) - value(&sums[i]);
}

void rs_evidence_limit(struct rs_evidence *e, uint64_t n, uint64_t bad, double limit)
{
    for (size_t i = 0; i < RS_EVIDENCE_RATIOS; i++) {
        double top = limit < RATE_MAX ? RATE_MAX : (1 + limit) / 2;
        double rate = limit * ratios[i] < top ? limit * ratios[i] : top;

        e->log_e[i] +=
            (double)bad * log(rate / limit) + (double)(n - bad) * log((1 - rate) / (1 - limit));
    }
}

double rs_evidence_log(const struct rs_evidence *e)
{
    struct log_sum sum = {.top = -DBL_MAX / 2};

    for (size_t i = 0; i < RS_EVIDENCE_RATIOS; i++)
        add(&sum, e->log_e[i] - log(RS_EVIDENCE_RATIOS));
    return value(&sum);
}
