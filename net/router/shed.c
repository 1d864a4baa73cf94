#include "net/router/shed.h"

#include "core/base/clock.h"

static const int64_t window = RS_SEC / 4; /* at least; it ends with a request */

void rs_shed_observe(struct rs_shed *s, int64_t delay, int64_t now)
{
    if (!s->target)
        return;
    if (delay <= (s->on ? s->target / 2 : s->target)) {
        s->above_since = 0;
        s->on = false;
    } else if (!s->above_since) {
        s->above_since = now;
    } else if (now - s->above_since >= s->interval) {
        s->on = true;
    }
}

void rs_drain_ended(struct rs_drain *d, bool waiting, int64_t now)
{
    int64_t took = now - d->since;

    if (!waiting) {
        d->since = 0;
        d->count = 0;
        return;
    }
    if (!d->since) {
        d->since = now;
        return;
    }
    d->count++;
    if (took >= window) {
        double rate = (double)d->count * (double)RS_SEC / (double)took;

        d->rate = d->rate > 0 ? (d->rate + rate) / 2 : rate;
        d->since = now;
        d->count = 0;
    }
}

unsigned rs_drain_wait(const struct rs_drain *d, unsigned queued, int64_t now)
{
    double rate = d->rate, seconds;

    if (d->since && now - d->since >= window) {
        /* A window that does not end is one in which little was done. */
        double most = (double)(d->count + 1) * (double)RS_SEC / (double)(now - d->since);

        rate = rate > 0 && rate < most ? rate : most;
    }
    if (rate <= 0)
        return 1;
    seconds = (double)queued / rate;
    if (seconds >= RS_DRAIN_WAIT_MAX)
        return RS_DRAIN_WAIT_MAX;
    return (unsigned)seconds + (seconds > (double)(unsigned)seconds || seconds < 1);
}

void rs_span_add(struct rs_span *s, int64_t took)
{
    int64_t off = took - s->mean;

    if (!s->mean) {
        s->mean = took;
        s->deviation = took / 2;
        return;
    }
    s->mean += off / 8;
    s->deviation += ((off < 0 ? -off : off) - s->deviation) / 8;
}

int64_t rs_span_most(const struct rs_span *s)
{
    return s->mean + 2 * s->deviation;
}
