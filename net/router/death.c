/* What becomes of the requests of a backend that died, or that lost its connection.
 *
 * Those that may go on (retry.h) are back in the queue before anybody is told. The others fail, and
 * whoever asked should read why: the connection knows only that it broke, the control thread learns a
 * moment later how the process ended. So they wait for that (rs_pool_remove tells it), but not long:
 * they are lost, and nothing more than a better text can come.
 */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "net/router/choose.h"
#include "net/router/pool-internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long lost requests wait to hear how their replica ended: until it did, where the connection was
 * the process; shortly, where it is only one of many that an HTTP server has. */
#define END_WAIT RS_SEC
#define LOSS_WAIT (100 * RS_MS)

static void count(const struct rs_pool *p, enum rs_retry_verdict v)
{
    rs_series_add(
        rs_family_series(p->metrics->interrupted,
                         (const char *const[]){p->shown_name, p->shown_app, rs_retry_name(v)}),
        1);
}

/* Only plain work is anyone's who is free. */
static bool is_bound(const struct rs_request *r)
{
    return r->wants != RS_WANTS_WORK;
}

static bool goes_on(struct rs_pool *p, struct rs_request *r, bool started)
{
    enum rs_retry_verdict v = is_bound(r) ? RS_RETRY_UNSAFE
                                          : rs_retry_decide(&r->retry, &p->budget, started, r->kept,
                                                            rs_loop_now(p->loop));

    count(p, v);
    r->verdict = (uint8_t)v;
    if (v > RS_RETRY_AGAIN)
        return false;
    rs_request_hold_as(r, RS_HELD_WAITING);
    rs_pool_unbind(p, r, RS_UNBIND_RETURNED, NULL);
    rs_queue_return(&p->queue, &r->waiter, rs_loop_now(p->loop));
    if (p->chooser)
        rs_chooser_add(p->chooser, r);
    return true;
}

static void fail_died(struct rs_request *r, const char *why)
{
    const struct rs_pool *p = r->pool;
    const struct rs_backend *b = r->backend;
    const char *not_again = is_bound(r) ? NULL : rs_retry_why((enum rs_retry_verdict)r->verdict);
    double ran_s = (double)(rs_loop_now(p->loop) - r->sent_at) / (double)RS_SEC;
    char message[1024];

    snprintf(
        message, sizeof(message),
        "%s%s of deployment '%.100s' (application '%.100s') died while it worked on the request, "
        "after %.3f s: %.400s%s%s",
        b->replica_id ? "replica " : "the node that has a replica",
        b->replica_id ? b->replica_id : "", p->name, p->app, ran_s,
        why && *why ? why : "its connection closed", not_again ? "; it was not run again: " : "",
        not_again ? not_again : "");
    rs_request_fail(
        r, &(struct rs_failure){.code = RS_WIRE_DIED, .message = message, .stopped = b->retired});
}

static void fail_lost(struct rs_backend *b, const char *why)
{
    struct rs_list *it = b->requests.next;

    while (it != &b->requests) {
        struct rs_request *r = rs_container_of(it, struct rs_request, link);

        it = it->next;
        if (!r->lost)
            continue;
        r->lost = false;
        fail_died(r, why);
        it = b->requests.next; /* one that fails may end others */
    }
}

/* Nothing of it is left with the pool; it is to be freed. */
static void bury(struct rs_pool *p, struct rs_backend *b, const char *why)
{
    rs_timer_stop(&b->mourning);
    while (!rs_list_empty(&b->requests))
        fail_died(rs_container_of(b->requests.next, struct rs_request, link), why);
    for (; b->abandoned; b->abandoned--)
        rs_queue_release(&p->queue, &b->slots, rs_loop_now(p->loop));
    free(b->last_why);
    b->last_why = NULL;
    rs_queue_remove_slots(&p->queue, &b->slots);
    b->pool = NULL;
    rs_pool_drop_series(p, b);
    rs_pool_refuse_waiting(p);
    p->ops->on_buried(b, p->arg);
}

static int on_mourning(struct rs_timer *t)
{
    struct rs_backend *b = rs_container_of(t, struct rs_backend, mourning);

    if (b->gone)
        bury(b->pool, b, b->last_why);
    else
        fail_lost(b, b->last_why);
    return 0;
}

static void mourn(struct rs_backend *b, const char *why, int64_t how_long)
{
    struct rs_pool *p = b->pool;

    free(b->last_why);
    b->last_why = rs_strdup(why);
    if (b->mourning.loop)
        return;
    b->mourning.fn = on_mourning;
    rs_timer_start(&b->mourning, p->loop, rs_loop_now(p->loop) + how_long);
}

/* Those that can go on do; the rest is still there, and lost. The oldest goes back last, and so is the
 * first again. */
static void lose_all(struct rs_pool *p, struct rs_backend *b, bool cancel)
{
    struct rs_list *it = b->requests.prev;

    while (it != &b->requests) {
        struct rs_request *r = rs_container_of(it, struct rs_request, link);

        it = it->prev;
        if (r->lost)
            continue;
        if (cancel && r->wants != RS_WANTS_SLOT)
            b->ops->cancel(b, r);
        r->lost = !goes_on(p, r, !r->unread);
    }
    rs_pool_show_queued(p);
}

/* Nobody could read why: it is told at once. */
static bool needs_no_text(const struct rs_request *r)
{
    return r->wants == RS_WANTS_SLOT || r->kind == RS_REQUEST_WEBSOCKET ||
           (r->retry.answered && r->kind == RS_REQUEST_HTTP);
}

static void fail_early(struct rs_backend *b, const char *why)
{
    struct rs_list *it = b->requests.next;

    while (it != &b->requests) {
        struct rs_request *r = rs_container_of(it, struct rs_request, link);

        it = it->next;
        if (!needs_no_text(r))
            continue;
        fail_died(r, why);
        it = b->requests.next; /* one that fails may end others */
    }
}

void rs_request_lost(struct rs_request *r, bool started, const char *why)
{
    struct rs_pool *p = r->pool;
    struct rs_backend *b = r->backend;

    if (goes_on(p, r, started)) {
        rs_pool_show_queued(p);
        rs_pool_pump(p);
        return;
    }
    r->lost = true;
    if (needs_no_text(r))
        fail_died(r, why);
    else
        mourn(b, why, LOSS_WAIT);
}

void rs_backend_cut(struct rs_backend *b, const char *why)
{
    struct rs_pool *p = b->pool;

    lose_all(p, b, false);
    if (b->pool)
        fail_lost(b, why);
    rs_pool_pump(p);
}

/* One that took requests and was not told to stop has died. */
static void close_for_good(struct rs_pool *p, struct rs_backend *b)
{
    if (p->tallies && b->figures && b->slots.admitted)
        rs_tallies_died(p->tallies, b->slots.fresh);
    b->gone = true;
    b->slots.admitted = false;
}

void rs_backend_gone(struct rs_backend *b, const char *why)
{
    struct rs_pool *p = b->pool;

    if (b->gone)
        return;
    close_for_good(p, b);
    lose_all(p, b, false);
    fail_early(b, why);
    p->ops->on_gone(b, why, p->arg);
    if (rs_list_empty(&b->requests))
        bury(p, b, why);
    else
        mourn(b, why, END_WAIT);
    rs_pool_refuse_waiting(p);
    rs_pool_pump(p);
}

void rs_pool_remove(struct rs_pool *p, struct rs_backend *b, const char *why)
{
    if (!b->pool)
        return; /* it is buried */
    if (!b->gone) {
        close_for_good(p, b);
        lose_all(p, b, true);
    }
    bury(p, b, why);
    rs_pool_pump(p);
}
