/* Requests that wait: how long, and what those are told that a deployment does not take, or no longer. */
#include "core/base/clock.h"
#include "net/router/choose.h"
#include "net/router/pool-internal.h"

#include <stdio.h>

static const char *const causes[RS_DROPS] = {
    [RS_DROP_FULL] = "queue_full",
    [RS_DROP_SHED] = "shed",
    [RS_DROP_EXPIRED] = "expired",
};

void rs_pool_count_drop(struct rs_pool *p, enum rs_drop why)
{
    if (!p->drops[why])
        p->drops[why] = rs_family_series(
            p->metrics->dropped, (const char *const[]){p->shown_name, p->shown_app, causes[why]});
    rs_series_add(p->drops[why], 1);
    atomic_fetch_add_explicit(&p->figures->dropped[why], 1, memory_order_relaxed);
}

void rs_pool_count_wait(struct rs_pool *p, int64_t waited)
{
    if (!p->waits)
        p->waits =
            rs_family_series(p->metrics->waits, (const char *const[]){p->shown_name, p->shown_app});
    rs_series_observe(p->waits, (double)waited / (double)RS_MS);
}

static void tell(const struct rs_pool *p, enum rs_drop why, char *to, size_t size)
{
    switch (why) {
    case RS_DROP_FULL: /* as Ray says it */
        snprintf(
            to, size,
            "Request dropped due to backpressure (num_queued_requests=%u, max_queued_requests=%d).",
            p->queue.queued, p->queue.max_queued);
        break;
    case RS_DROP_SHED:
        snprintf(to, size,
                 "Request dropped due to overload: requests wait longer than %gs for deployment "
                 "'%.100s' (application '%.100s').",
                 (double)p->queue.shed.target / (double)RS_SEC, p->name, p->app);
        break;
    default:
        snprintf(to, size,
                 "the time limit of the request passed while it waited for deployment '%.100s' "
                 "(application '%.100s')",
                 p->name, p->app);
        break;
    }
}

void rs_pool_drop(struct rs_pool *p, struct rs_request *r, enum rs_drop why)
{
    struct rs_failure f = {.code = RS_WIRE_BACKPRESSURE};
    char message[400];

    rs_pool_count_drop(p, why);
    rs_chooser_drop(p->chooser, r, NULL);
    tell(p, why, message, sizeof(message));
    f.message = message;
    if (why == RS_DROP_EXPIRED) {
        f.code = RS_WIRE_TIMEOUT;
    } else {
        f.queued = p->queue.queued;
        f.max_queued = (unsigned)p->queue.max_queued;
        f.retry_after = rs_queue_retry_after(&p->queue, rs_loop_now(p->loop));
    }
    r->pool = NULL;
    r->reply->fail(r, &f);
}
